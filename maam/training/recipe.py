"""Recipes: everything that decides a training run besides the architecture, as one validated document."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator

from maam.errors import RecipeError, SpecError
from maam.spec.fields import Fraction, NonNegative, Positive, Probability, Size
from maam.training.optimizer import Optimizer
from maam.training.section import Section, explain, nearest

Precision = Literal["auto", "fp32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
DataName = Literal["cifar10", "cifar100", "digits", "imagefolder"]


class Augmentation(Section):
    """What is done to training images; see `maam.data.Augmentation`.

    padding: rows and columns of zeros on each side before a random crop back to size; flip_probability: of a
    horizontal flip; cutout: side of a random square that is painted with the mean grey of its range (DeVries and
    Taylor, arXiv 1708.04552), 0 for none.
    """

    padding: NonNegative = 4
    flip_probability: Fraction = 0.5
    cutout: NonNegative = 0


class Schedule(Section):
    """How the learning rate moves from step to step; see `maam.training.schedule`.

    one_cycle: `warmup` is the share of all steps on the way up, from `start` times the peak, then a cosine to 0.
    cosine: `warmup` likewise, linear, then a cosine to 0. step: times `gamma` every `step_epochs` epochs.
    """

    name: Literal["one_cycle", "cosine", "step", "constant"] = "one_cycle"
    warmup: Fraction = 0.3
    start: Fraction = 0.04
    step_epochs: Size = 30
    gamma: Positive = 0.1


class Recipe(Section):
    """A training run.

    Attributes:
        model: the preset that the recipe trains where a command names none.
        presets: shell wildcards of the presets whose default recipe this is.
        overrides: of the preset (`num_classes`, ...).
        data: the data set.
        augmentation: of the training images.
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
    data: DataName = "cifar10"
    augmentation: Augmentation = Augmentation()
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

    @field_validator("optimizer", mode="before")
    @classmethod
    def _optimizer(cls, value: Any) -> Any:
        try:
            return Optimizer(**value) if isinstance(value, dict) else value
        except SpecError as error:  # the path to the field stands before the message already
            raise ValueError(str(error).removeprefix("optimizer: ")) from None

    def replaced(self, changes: dict[str, Any]) -> Recipe:
        """The recipe with `changes`, whose keys are paths such as "optimizer.lr".

        Raises:
            RecipeError: there is no such field, or it cannot have that value.
        """
        document = self.model_dump()
        for path, value in changes.items():
            *sections, field = path.split(".")
            table: Any = document
            for section in sections:
                table = table.get(section) if isinstance(table, dict) else None
            if not isinstance(table, dict):
                raise RecipeError(f"recipe: {path}: no such field{nearest(sections[0], Recipe.model_fields)}")
            table[field] = value
        return Recipe(**document)
