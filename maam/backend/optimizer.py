"""Optimizers and their settings, defined as in PyTorch; each backend translates them."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, Field, ValidationError, model_validator

from maam._config import Section, explain
from maam._messages import listed, suggestion
from maam.errors import SpecError
from maam.spec import Node, Parameter, Role
from maam.spec.fields import Flag, Positive

LARGEST_RATE, LARGEST = 1e30, 1e6
"""The largest learning rate, and the largest value of other settings.

Frameworks fail in the middle of a step if a factor overflows float32. Within these bounds, neither the product of
learning rate and weight decay nor the learning rate divided by Adam's bias correction overflows.
"""
MOMENTS = {"sgd": ("momentum_buffer",), "adam": ("exp_avg", "exp_avg_sq"), "adamw": ("exp_avg", "exp_avg_sq")}
"""The arrays that each optimizer keeps for each parameter; all start as zeros."""


def _check_rate(value: float) -> float:
    if value > LARGEST_RATE:
        raise ValueError(f"expected at most {LARGEST_RATE:g}, so that a step fits float32, got {value:g}")
    return value


Rate = Annotated[Positive, AfterValidator(_check_rate)]
NonNegativeReal = Annotated[float, Field(strict=True, ge=0, le=LARGEST, allow_inf_nan=False)]
Small = Annotated[float, Field(strict=True, gt=0, le=LARGEST, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)]


RoleName = Literal["weight", "bias", "norm_weight", "norm_bias", "recurrent", "fusion"]
Factor = Annotated[float, Field(strict=True, ge=1e-6, le=1000, allow_inf_nan=False)]


class Group(NamedTuple):
    """Parameters that an optimizer treats alike.

    Attributes:
        weight_decay: the factor of weight decay.
        lr_factor: the learning rate, relative to that of the optimizer.
        names: the canonical names.
    """

    weight_decay: float
    lr_factor: float
    names: list[str]


class Optimizer(Section):
    """An optimizer and its settings.

    With the gradient g and the weight w, one step is:

    - sgd: d = g + weight_decay w; b = momentum b + d; w -= lr (d + momentum b if nesterov else b).
    - adam, adamw: Kingma and Ba's method with bias correction. Weight decay is added to the gradient in adam (L2), and
      shrinks the weights in adamw (decoupled: w -= lr weight_decay w).

    Attributes:
        name: "sgd", "adam" or "adamw".
        lr: the learning rate.
        momentum: the momentum of sgd.
        nesterov: whether sgd uses Nesterov's momentum.
        weight_decay: the factor of weight decay.
        decay: "weights" applies weight decay to the weights of convolutions and linear maps, "all" to all parameters.
        lr_factors: learning rates relative to `lr`, by the role of parameters: "weight", "bias", "norm_weight",
            "norm_bias", "recurrent" or "fusion" (the scalars that weight branches). Weight decay is divided by the
            factor, so that all parameters decay at the same rate.
        betas: the decay rates of the two moments of adam and adamw.
        eps: the term in the denominator of adam and adamw.

    Raises:
        SpecError: a setting is unknown, of the wrong type or range, or contradicts another.

    Example:
        >>> from maam.backend.optimizer import Optimizer
        >>> Optimizer(name="sgd", lr=0.05, nesterov=True).settings
        {'momentum': 0.9, 'nesterov': True}
    """

    settings_of: ClassVar[dict[str, tuple[str, ...]]] = {
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
    lr_factors: dict[RoleName, Factor] = Field(default_factory=dict)
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
            raise ValueError("nesterov: expected a momentum above 0, got 0")
        return self

    @model_validator(mode="after")
    def _decay_fits(self) -> Optimizer:
        for role, factor in self.lr_factors.items():
            if self.weight_decay / factor > LARGEST:
                raise ValueError(f"weight_decay: expected at most {LARGEST:g} times lr_factors.{role}, {factor:g}")
        return self

    @property
    def moments(self) -> tuple[str, ...]:
        """The names of the arrays kept for each parameter."""
        return MOMENTS[self.name]

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments other than learning rate and weight decay, under their names in PyTorch and MindSpore."""
        return {field: getattr(self, field) for field in self.settings_of[self.name]}

    def decays(self, parameter: Parameter) -> bool:
        """Return whether weight decay applies to a parameter."""
        return self.decay == "all" or parameter.role in (Role.WEIGHT, Role.RECURRENT)

    def lr_factor(self, parameter: Parameter) -> float:
        """Return the learning rate of a parameter, relative to `lr`."""
        return self.lr_factors.get(parameter.role.value, 1.0)  # type: ignore[call-overload]

    def groups(self, spec: Node, freeze: Sequence[str] = ()) -> list[Group]:
        """Return the groups of trainable parameters that are not empty; those that `freeze` matches are left out.

        Raises:
            SpecError: as `find_frozen`.
        """
        frozen = find_frozen(spec, freeze)
        parameters = [p for p in spec.parameters() if p.trainable and p.name not in frozen]
        factors = {p.name: self.lr_factor(p) for p in parameters}
        found = []
        for decays in (True, False):
            for factor in sorted(set(factors.values())):
                names = [p.name for p in parameters if self.decays(p) is decays and factors[p.name] == factor]
                found.append(Group(self.weight_decay / factor if decays else 0.0, factor, names))
        return [group for group in found if group.names]


def find_frozen(spec: Node, patterns: Sequence[str]) -> frozenset[str]:
    """Return the canonical names that shell wildcards match, such as "stem.*".

    A frozen parameter is not updated. A batch norm with frozen running statistics normalizes with them in training.

    Raises:
        SpecError: a pattern matches no parameter, or all trainable parameters are frozen.

    Example:
        >>> from maam import spec
        >>> sorted(find_frozen(spec.preset("maam_digits"), ["classifier.fc1.*"]))
        ['classifier.fc1.bias', 'classifier.fc1.weight']
    """
    names = [p.name for p in spec.parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            hint = suggestion(pattern, names, f"its first parameters: {listed(names[:5])}")
            raise SpecError(f"freeze: {pattern!r} matches no parameter of the model; {hint}")
    frozen = frozenset(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))
    if all(p.name in frozen for p in spec.parameters() if p.trainable):
        raise SpecError(f"freeze: {', '.join(patterns)} matches all parameters; expected some to train")
    return frozen
