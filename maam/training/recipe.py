"""Recipes: everything that decides a training run besides the architecture, as one validated document."""

from __future__ import annotations

import os
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from maam._config import Section, explain, nearest_field
from maam.backend.optimizer import Optimizer
from maam.data import IMAGENET_MEAN, IMAGENET_STD, CenterCrop, RandomResizedCrop
from maam.errors import RecipeError, SpecError
from maam.spec.fields import Fraction, NonNegative, Positive, Probability, Size, plain_integer, plain_number

Precision = Literal["auto", "fp32", "bf16", "fp16"]
DataName = Literal["cifar10", "cifar100", "digits", "imagefolder"]
_NAMES = ("optimizer.name", "schedule.name")
IMAGE_FOLDER = "imagefolder"
"""The data that is read file by file; the others are held in memory."""


class Augmentation(Section):
    """What is done to training images; see `maam.data.Augmentation`.

    padding: rows and columns of zeros on each side before a random crop back to size; flip_probability: of a
    horizontal flip; cutout: side of a random square that is painted with the mean grey of its range (DeVries and
    Taylor, arXiv 1708.04552), 0 for none.
    """

    padding: NonNegative = 4
    flip_probability: Fraction = 0.5
    cutout: NonNegative = 0


class Images(Section):
    """How image files become arrays, with data "imagefolder"; see `maam.data.RandomResizedCrop` and `CenterCrop`.

    size: height and width; the model's own where None. resize: length of the shorter side in front of the central crop
    of validation; 8/7 of `size` where None, as 256 is of 224. scale, ratio: ranges of area and aspect ratio of
    random crops. mean, std: what pixels in [0, 1] are normalised by; ImageNet's by default.
    """

    size: Size | None = None
    resize: Size | None = None
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_probability: Fraction = 0.5
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[Positive, Positive, Positive] = IMAGENET_STD

    @model_validator(mode="after")
    def _can_be_framed(self) -> Images:
        self.framings(self.size or 224)
        return self

    def framings(self, size: int) -> tuple[RandomResizedCrop, CenterCrop]:
        """How training and validation images are cut for a model that takes images of `size`.

        Raises:
            DataError: a field is out of its range.
        """
        size = self.size or size
        resize = self.resize or round(size * 8 / 7)
        return RandomResizedCrop(size, self.scale, self.ratio, self.flip_probability), CenterCrop(size, resize)


class Schedule(Section):
    """How the learning rate moves from step to step; see `maam.training.schedule`.

    one_cycle: `warmup` is the share of all steps on the way up, from `start` times the peak, then a cosine to 0.
    cosine: `warmup` likewise, linear, then a cosine to 0. step: times `gamma`, at most 1, every `step_epochs` epochs.
    """

    acting: ClassVar[dict[str, tuple[str, ...]]] = {
        "one_cycle": ("warmup", "start"),
        "cosine": ("warmup", "start"),
        "step": ("step_epochs", "gamma"),
        "constant": (),
    }
    name: Literal["one_cycle", "cosine", "step", "constant"] = "one_cycle"
    warmup: Fraction = 0.3
    start: Fraction = 0.04
    step_epochs: Size = 30
    gamma: Annotated[Positive, Field(le=1)] = 0.1


class Recipe(Section):
    """A training run.

    Attributes:
        model: the preset, weights file or spec document that the recipe trains where a command names none.
        presets: shell wildcards of the presets whose default recipe this is.
        overrides: of the preset (`num_classes`, ...); of a file `num_classes` alone.
        weights: a weights file, or the folder of a run, that training starts from: of the same network, but for the
            number of classes, for which a new last layer is drawn. None: all weights are drawn from `seed`.
        data: the data set.
        augmentation: of the training images, in data sets that are held in memory.
        images: how image files are cut and normalised.
        epochs: passes over the data.
        batch_size: images in a step, over all processes; a last smaller batch is left out.
        optimizer, schedule: see `Optimizer` and `Schedule`.
        label_smoothing: share of the target that is spread evenly over all classes.
        clip_norm: greatest norm of all gradients together; larger ones are scaled down to it. None for no limit.
        ema_decay: decay of an exponential moving average of weights and statistics, which is then what is
            evaluated and saved; None for none. The first steps average over a shorter past.
        precision: "auto" is the framework's fastest on the device; "fp16" scales the loss.
        seed: decides initial weights, order, crops and flips: the same in every framework.

    Raises:
        RecipeError: a field is unknown, of the wrong type or range, or contradicts another.
    """

    model: str | None = None
    presets: tuple[str, ...] = ()
    overrides: dict[str, Any] = Field(default_factory=dict)
    weights: str | None = None
    data: DataName = "cifar10"
    augmentation: Augmentation = Augmentation()
    images: Images = Images()
    epochs: Size = 30
    batch_size: Size = 64
    optimizer: Optimizer = Field(default_factory=Optimizer)
    schedule: Schedule = Schedule()
    label_smoothing: Probability = 0.0
    clip_norm: Positive | None = None
    ema_decay: Annotated[float, Field(strict=True, gt=0, lt=1)] | None = None
    precision: Precision = "auto"
    seed: NonNegative = 0

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise RecipeError(f"recipe: {explain(error, Recipe)}") from None

    @field_validator("weights", mode="before")
    @classmethod
    def _weights(cls, value: Any) -> Any:
        return os.fspath(value) if isinstance(value, os.PathLike) else value

    @field_validator("overrides", mode="before")
    @classmethod
    def _overrides(cls, value: Any) -> Any:
        return {name: _plain(f"{name}", one) for name, one in value.items()} if isinstance(value, dict) else value

    @field_validator("optimizer", mode="before")
    @classmethod
    def _optimizer(cls, value: Any) -> Any:
        try:
            return Optimizer(**value) if isinstance(value, dict) else value
        except SpecError as error:  # the path to the field stands before the message already
            raise ValueError(str(error).removeprefix("optimizer: ")) from None

    @model_validator(mode="after")
    def _sections_fit_the_data(self) -> Recipe:
        unused = _unused(self.data)
        used = "images" if unused == "augmentation" else "augmentation"
        if getattr(self, unused) != type(self).model_fields[unused].default:
            raise ValueError(f"{unused}: it does not act on data {self.data}; see {used}")
        return self

    def replaced(self, changes: dict[str, Any]) -> Recipe:
        """The recipe with `changes`, whose keys are paths such as "optimizer.lr".

        A table for a section changes the fields that it names, but another optimizer or schedule has its own defaults,
        for its name alone too where the settings of the one before do not act.
        With other `data`, the section that does not act on it (`augmentation` or `images`) is left out.

        Raises:
            RecipeError: there is no such field, or it cannot have that value.
        """
        document = self.model_dump()
        if "data" in changes:
            document[_unused(changes["data"])] = {}
        for path, value in sorted(changes.items(), key=lambda change: change[0] not in _NAMES):  # names first
            *sections, field = path.split(".")
            table: Any = document
            for section in sections:
                table = table.get(section) if isinstance(table, dict) else None
            if not isinstance(table, dict):
                raise RecipeError(f"recipe: {path}: no such field{nearest_field(path, Recipe)}")
            table[field] = _merged(table.get(field), value) if field != "overrides" else value
            if path in _NAMES:
                document[sections[0]] = _left(type(getattr(self, sections[0])), table)
        return Recipe(**document)


def _plain(path: str, value: Any) -> Any:
    """An option of a preset as JSON has it, which is how a resumed run finds it again."""
    if isinstance(value, dict):
        return {str(name): _plain(f"{path}.{name}", one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(path, one) for one in value]
    found = plain_number(plain_integer(value))
    if found is not None and not isinstance(found, (bool, int, float, str)):
        raise ValueError(f"{path}: expected what JSON can write, got an object of type {type(value).__name__}")
    return found


def _unused(data: Any) -> str:
    """The section that does not act on `data`."""
    return "augmentation" if data == IMAGE_FOLDER else "images"


def _left(section: type[Section], table: dict[str, Any]) -> dict[str, Any]:
    """The settings that act in a section of another name."""
    foreign = section.foreign(table["name"])
    return {field: value for field, value in table.items() if field not in foreign}


def _merged(old: Any, new: Any) -> Any:
    """A section with other fields; all of `new` where it is no table, or of something with another name."""
    if not (isinstance(old, dict) and isinstance(new, dict)) or new.get("name", old.get("name")) != old.get("name"):
        return new
    return {**old, **new}
