"""Recipes: everything that determines a training run besides the architecture, as one validated document."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from maam._config import Section, explain, field_hint
from maam._documents import count_objects
from maam.backend.optimizer import NonNegativeReal, Optimizer
from maam.data import IMAGENET_MEAN, IMAGENET_STD, CenterCrop, RandomResizedCrop
from maam.errors import RecipeError, SpecError
from maam.spec.fields import Flag, Fraction, NonNegative, Positive, Probability, Size, plain_integer, plain_number

Precision = Literal["auto", "fp32", "bf16", "fp16"]
DataName = Literal["cifar10", "cifar100", "digits", "imagefolder"]
IMAGE_FOLDER = "imagefolder"
"""The data that is read file by file; all other data sets are held in memory."""
_NAMES = ("optimizer.name", "schedule.name")
_MAX_OBJECTS = 1000
"""The most tables in `overrides`."""


class Augmentation(Section):
    """Random changes of training images in memory; see `maam.data.Augmentation`.

    Attributes:
        padding: rows and columns added on each side before a random crop back to the original size.
        flip_probability: the probability of a horizontal flip.
        cutout: the side of a random gray square (DeVries and Taylor, arXiv 1708.04552); 0 for no square.
        padding_mode: the added pixels: "zeros", or "reflect" for a mirror image.
        alternating_flip: flip each image in every second epoch instead of at random; `flip_probability` is then the
            share of images that are flipped in the first epoch.
    """

    padding: NonNegative = 4
    flip_probability: Fraction = 0.5
    cutout: NonNegative = 0
    padding_mode: Literal["zeros", "reflect"] = "zeros"
    alternating_flip: Flag = False


class Images(Section):
    """Cropping and normalization of image files; see `maam.data.RandomResizedCrop` and `maam.data.CenterCrop`.

    Attributes:
        size: height and width; None for the size of the model.
        resize: the length of the shorter side before the central crop in validation; None for 8/7 of `size`, as 256
            for 224.
        scale: the range of the area of random crops, as fractions of the image.
        ratio: the range of the aspect ratio of random crops.
        flip_probability: the probability of a horizontal flip in training.
        mean: three numbers, subtracted from the channels of the pixels in [0, 1].
        std: three numbers by which the channels are divided after that.
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
        self.framings(self.size or min(self.resize or 224, 224))  # the size of the model is not known here
        return self

    def framings(self, size: int) -> tuple[RandomResizedCrop, CenterCrop]:
        """Return the crops of training and validation for a model with images of `size` x `size` pixels.

        Raises:
            DataError: a field is out of its range.
        """
        size = self.size or size
        resize = self.resize or round(size * 8 / 7)
        return RandomResizedCrop(size, self.scale, self.ratio, self.flip_probability), CenterCrop(size, resize)


class Schedule(Section):
    """The learning rate of each step, relative to the optimizer's `lr`; see `maam.training.learning_rate`.

    Attributes:
        name: "one_cycle" (a cosine up, then a cosine down to 0), "cosine" (a line up, then a cosine down to 0),
            "triangular" (a line up, then a line down), "step" (a factor every few epochs) or "constant".
        warmup: the share of all steps on the way up (one_cycle, cosine, triangular).
        start: the learning rate of the first step, as a fraction of the peak (one_cycle, cosine, triangular).
        end: the learning rate after the last step, as a fraction of the peak (triangular).
        step_epochs: epochs between two changes (step).
        gamma: the factor of each change, at most 1 (step).
    """

    settings_of: ClassVar[dict[str, tuple[str, ...]]] = {
        "one_cycle": ("warmup", "start"),
        "cosine": ("warmup", "start"),
        "triangular": ("warmup", "start", "end"),
        "step": ("step_epochs", "gamma"),
        "constant": (),
    }
    name: Literal["one_cycle", "cosine", "triangular", "step", "constant"] = "one_cycle"
    warmup: Fraction = 0.3
    start: Fraction = 0.04
    end: Fraction = 0.0
    step_epochs: Size = 30
    gamma: Annotated[Positive, Field(le=1)] = 0.1


class Initialization(Section):
    """Initial weights that are not drawn from the distributions of the spec; see `maam.training.initialization`.

    They apply only to runs that start from random weights.

    Attributes:
        whiten: the path of the first convolution, such as "stem.conv". Its filters become the principal components of
            patches of the training images, scaled to variance 1, each one also with the opposite sign. Freeze its
            weight with `freeze`. None: no whitening.
        dirac: shell wildcards of convolutions whose filters start as the identity, as far as there are channels for it.
    """

    whiten: str | None = None
    dirac: tuple[str, ...] = ()


class Lookahead(Section):
    """Look-ahead averaging: every few steps, the weights are replaced by their average (arXiv 1907.08610, 2404.00498).

    The averaged weights are evaluated and saved.

    Attributes:
        steps: the number of steps between two averages; 0 for no averaging.
        decay: the share of the previous average at the end of the run. It grows from 0 with the cube of the share of
            steps done.
    """

    steps: NonNegative = 0
    decay: Fraction = 0.77

    @model_validator(mode="after")
    def _decay_acts(self) -> Lookahead:
        if not self.steps and self.decay != type(self).model_fields["decay"].default:
            raise ValueError("decay: no effect without steps; set lookahead.steps, or remove it")
        return self


class Recipe(Section):
    """All settings of a training run besides the architecture.

    Attributes:
        model: the preset, weights file or spec document to train if the command names none.
        presets: shell wildcards of the presets that use this recipe by default.
        overrides: options of the preset, such as `num_classes`; for a file, only `num_classes` is allowed.
        weights: the weights of the same network to start from (fine-tuning): a weights file, the folder of a run, or a
            preset with pretrained weights. If only the number of classes differs, `seed` draws a new last layer. None:
            `seed` draws all weights.
        data: the name of the data set.
        augmentation: random changes of training images, for data sets in memory.
        images: cropping and normalization of image files, for data "imagefolder".
        limit: use at most this many images, for training and for testing. None for all. A folder of image files yields
            evenly spaced ones, other data sets their first ones.
        validation: hold out this many training images, in proportion to the classes, and measure the run on them
            instead of on the test images. The choice depends on the data set only, so all runs hold out the same
            images. 0: hold out no images.
        mixup: alpha of mixup, which blends pairs of training images and their labels (`maam.data.Mixing`); 0 for none.
        cutmix: alpha of CutMix, which replaces a rectangle of each training image by that of another one; 0 for none.
        epochs: the number of passes over the data.
        max_steps: the number of steps after which the run and its schedule end. None for all steps of all epochs.
        batch_size: the number of images in a step, over all processes; a smaller last batch is dropped.
        optimizer: see `Optimizer`.
        schedule: the learning rate over the run; see `Schedule`.
        label_smoothing: the share of the target that is spread evenly over all classes, in [0, 1).
        initialization: whitening and identity initialization; see `Initialization`.
        freeze: shell wildcards of parameters that are not trained, such as "stem.*". A batch norm whose running
            statistics match normalizes with them in training, too.
        batch_norm_momentum: the share of the new batch in the running statistics of all batch norms. None: as in the
            spec of the model.
        clip_norm: the largest norm of all gradients taken together; None for no limit.
        ema_decay: the decay of an exponential moving average of weights and statistics. The averaged model is
            evaluated and saved. None for no average; the first steps use a smaller decay.
        lookahead: look-ahead averaging; see `Lookahead`. It cannot be combined with `ema_decay`.
        precision: "fp32", "bf16", "fp16" (with loss scaling), or "auto" for the framework's fastest on the device.
        seed: determines initial weights, order, crops and flips, identically in every framework.

    Raises:
        RecipeError: a field is unknown, has the wrong type or range, or contradicts another field.

    Example:
        >>> from maam.training import Recipe
        >>> recipe = Recipe(model="maam_digits", data="digits", epochs=5, optimizer={"lr": 0.05})
        >>> recipe.optimizer.name, recipe.optimizer.lr, recipe.schedule.name
        ('sgd', 0.05, 'one_cycle')
        >>> recipe.replaced({"optimizer.lr": 0.1}).optimizer.lr
        0.1
    """

    model: str | None = None
    presets: tuple[str, ...] = ()
    overrides: dict[str, Any] = Field(default_factory=dict)
    weights: str | None = None
    data: DataName = "cifar10"
    augmentation: Augmentation = Augmentation()
    images: Images = Images()
    mixup: NonNegativeReal = 0.0
    cutmix: NonNegativeReal = 0.0
    limit: Size | None = None
    validation: NonNegative = 0
    epochs: Size = 30
    max_steps: Size | None = None
    batch_size: Size = 64
    optimizer: Optimizer = Field(default_factory=Optimizer)
    schedule: Schedule = Schedule()
    label_smoothing: Probability = 0.0
    initialization: Initialization = Initialization()
    freeze: tuple[str, ...] = ()
    batch_norm_momentum: Annotated[float, Field(strict=True, gt=0, le=1)] | None = None
    clip_norm: Positive | None = None
    ema_decay: Annotated[float, Field(strict=True, gt=0, lt=1)] | None = None
    lookahead: Lookahead = Lookahead()
    precision: Precision = "auto"
    seed: NonNegative = 0

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise RecipeError(f"recipe: {explain(error, Recipe)}") from None

    @field_validator("weights", "model", mode="before")
    @classmethod
    def _paths(cls, value: Any) -> Any:
        path = os.fspath(value) if isinstance(value, os.PathLike) else value
        if isinstance(path, str) and "\0" in path:
            raise ValueError("a path cannot contain a NUL character")
        return path

    @field_validator("overrides", mode="before")
    @classmethod
    def _overrides(cls, value: Any) -> Any:
        count_objects(value, _MAX_OBJECTS)
        return {name: _to_json(f"{name}", one) for name, one in value.items()} if isinstance(value, dict) else value

    @field_validator("optimizer", mode="before")
    @classmethod
    def _optimizer(cls, value: Any) -> Any:
        try:
            return Optimizer(**value) if isinstance(value, dict) else value
        except SpecError as error:  # pydantic puts the name of the field before the message
            raise ValueError(str(error).removeprefix("optimizer: ")) from None

    @model_validator(mode="after")
    def _tables_fit_the_data(self) -> Recipe:
        unused = unused_table(self.data)
        used = "images" if unused == "augmentation" else "augmentation"
        if getattr(self, unused) != type(self).model_fields[unused].default:
            raise ValueError(f"{unused}: this has no effect with data {self.data}; use {used}")
        return self

    @model_validator(mode="after")
    def _has_one_validation_set(self) -> Recipe:
        if self.validation and self.data == IMAGE_FOLDER:
            raise ValueError(
                f"validation: this has no effect with data {self.data}, which is measured on its folder val"
            )
        return self

    @model_validator(mode="after")
    def _mixes_pairs(self) -> Recipe:
        for name in ("mixup", "cutmix"):
            if getattr(self, name) and self.batch_size == 1:
                raise ValueError(f"{name}: no effect on batches of one image; increase batch_size, or remove it")
        return self

    @model_validator(mode="after")
    def _has_one_average(self) -> Recipe:
        if self.ema_decay is not None and self.lookahead.steps:
            raise ValueError("ema_decay: this cannot be combined with lookahead; leave one of them out")
        return self

    @property
    def split(self) -> str:
        """The images that the run is measured on: "validation" or "test"."""
        return "validation" if self.validation else "test"

    @property
    def averages(self) -> bool:
        """Whether averages of the weights are evaluated and saved."""
        return self.ema_decay is not None or self.lookahead.steps > 0

    def replaced(self, changes: Mapping[str, Any] | None = None, /, **fields: Any) -> Recipe:
        """Return the recipe with some fields changed.

        Args:
            changes: values by path, such as {"optimizer.lr": 0.1}. A dictionary for a table changes only the fields
                in it. Another optimizer or schedule resets the settings that have no effect with it. Other `data`
                resets the table that has no effect with it, `augmentation` or `images`.
            fields: further changes by name, such as epochs=2.

        Raises:
            RecipeError: there is no such field, or its value is not allowed.

        Example:
            >>> from maam.training import read_recipe
            >>> recipe = read_recipe("cifar10").replaced({"optimizer.lr": 0.02}, epochs=5, schedule={"warmup": 0.1})
            >>> recipe.epochs, recipe.optimizer.lr, recipe.schedule.name
            (5, 0.02, 'one_cycle')
        """
        changes = {**(changes or {}), **fields}
        document = self.model_dump()
        if "data" in changes:
            document[unused_table(changes["data"])] = {}
        for path, value in sorted(changes.items(), key=lambda change: change[0] not in _NAMES):  # names first
            *tables, field = path.split(".")
            table: Any = document
            for name in tables:
                table = table.get(name) if isinstance(table, dict) else None
            if not isinstance(table, dict):
                raise RecipeError(f"recipe: {path}: no such field{field_hint(path, Recipe)}")
            table[field] = _merged(table.get(field), value) if field != "overrides" else value
            if path in _NAMES:
                unused = type(getattr(self, tables[0])).unused_settings(value)
                document[tables[0]] = {name: one for name, one in table.items() if name not in unused}
        return Recipe(**document)


def _to_json(path: str, value: Any) -> Any:
    """Return a preset's option with the types of JSON, so that a resumed run compares equal."""
    if isinstance(value, dict):
        return {str(name): _to_json(f"{path}.{name}", one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(path, one) for one in value]
    found = plain_number(plain_integer(value))
    if found is not None and not isinstance(found, (bool, int, float, str)):
        raise ValueError(
            f"{path}: expected a value that JSON can represent, got an object of type {type(value).__name__}"
        )
    return found


def unused_table(data: Any) -> str:
    """Return the name of the table that has no effect with `data`."""
    return "augmentation" if data == IMAGE_FOLDER else "images"


def _merged(old: Any, new: Any) -> Any:
    """Return a table updated by `new`; return `new` if it is not a table, or a table with another name."""
    if not (isinstance(old, dict) and isinstance(new, dict)) or new.get("name", old.get("name")) != old.get("name"):
        return new
    return {**old, **new}
