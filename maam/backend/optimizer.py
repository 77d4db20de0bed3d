"""What an optimizer means, in PyTorch's sense; each room translates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from maam._config import Section, explain
from maam.errors import SpecError
from maam.spec import Node, Parameter, Role
from maam.spec.fields import Flag, Positive

LARGEST_RATE, LARGEST = 1e30, 1e6
"""Both frameworks refuse a factor that float32 does not hold, in the middle of a step: with these bounds it holds
learning rate times weight decay, and learning rate over Adam's correction of bias, too."""


def _held(value: float) -> float:
    if value > LARGEST_RATE:
        raise ValueError(f"expected at most {LARGEST_RATE:g}, so that float32 holds a step, got {value:g}")
    return value


Rate = Annotated[Positive, AfterValidator(_held)]
NonNegativeReal = Annotated[float, Field(strict=True, ge=0, le=LARGEST, allow_inf_nan=False)]
Small = Annotated[float, Field(strict=True, gt=0, le=LARGEST, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)]

MOMENTS = {"sgd": ("momentum_buffer",), "adam": ("exp_avg", "exp_avg_sq"), "adamw": ("exp_avg", "exp_avg_sq")}
"""The arrays that each optimizer keeps for each parameter; all start as zeros."""


class Optimizer(Section):
    """An optimizer and its settings.

    sgd: d = g + weight_decay w; b = momentum b + d; w -= lr (d + momentum b if nesterov else b).
    adam, adamw: Kingma and Ba's, bias-corrected; weight decay is added to the gradient in adam (L2) and shrinks the
    weights in adamw (decoupled: w -= lr weight_decay w).

    Raises:
        SpecError: a setting is unknown, of the wrong type or range, or contradicts another.
    """

    acting: ClassVar[dict[str, tuple[str, ...]]] = {
        "sgd": ("momentum", "nesterov"),
        "adam": ("betas", "eps"),
        "adamw": ("betas", "eps"),
    }
    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Rate = 0.1
    momentum: Share = 0.9
    nesterov: Flag = False
    weight_decay: NonNegativeReal = 0.0
    decay: Literal["weights", "all"] = "weights"
    betas: tuple[Share, Share] = (0.9, 0.999)
    eps: Small = 1e-8

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise SpecError(f"optimizer: {explain(error, Optimizer)}") from None

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Optimizer:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov: it needs a momentum above 0")
        return self

    @property
    def moments(self) -> tuple[str, ...]:
        """The names of the arrays kept for each parameter."""
        return MOMENTS[self.name]

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments besides learning rate and weight decay, as PyTorch and MindSpore both call them."""
        return {field: getattr(self, field) for field in self.acting[self.name]}

    def decays(self, parameter: Parameter) -> bool:
        """Whether weight decay acts on a parameter: on convolution and matrix weights, or with decay "all" on all."""
        return self.decay == "all" or parameter.role in (Role.WEIGHT, Role.RECURRENT)

    def groups(self, spec: Node) -> list[tuple[float, list[str]]]:
        """(weight decay, names of the parameters that it acts on); groups without parameters are left out."""
        trainable: Iterable[Parameter] = [p for p in spec.parameters() if p.trainable]
        decayed = [p.name for p in trainable if self.decays(p)]
        others = [p.name for p in trainable if not self.decays(p)]
        return [(decay, names) for decay, names in ((self.weight_decay, decayed), (0.0, others)) if names]
