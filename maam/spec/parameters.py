"""The table of parameters: canonical name, shape, role and initial distribution of every array of a model."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from enum import Enum
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from maam.errors import SpecError
from maam.spec.fields import Shape


class Role(str, Enum):
    """What an array is for. A backend's own name of it follows from the role, never from its text."""

    WEIGHT = "weight"
    BIAS = "bias"
    NORM_WEIGHT = "norm_weight"
    NORM_BIAS = "norm_bias"
    RUNNING_MEAN = "running_mean"
    RUNNING_VAR = "running_var"
    RECURRENT = "recurrent"
    FUSION = "fusion"

    @property
    def trainable(self) -> bool:
        """False for running statistics, which a forward pass in training mode updates."""
        return self not in (Role.RUNNING_MEAN, Role.RUNNING_VAR)


class Init(NamedTuple):
    """An initial distribution: constant(value), uniform(-value, value) or normal(0, standard deviation value)."""

    distribution: Literal["constant", "uniform", "normal"]
    value: float


ZEROS = Init("constant", 0.0)
ONES = Init("constant", 1.0)


class Parameter(NamedTuple):
    """A row of the table: canonical name (the PyTorch state_dict key), shape, role and initialisation."""

    name: str
    shape: Shape
    role: Role
    init: Init

    @property
    def size(self) -> int:
        """The number of scalars."""
        return math.prod(self.shape)

    @property
    def trainable(self) -> bool:
        """Whether an optimizer updates it."""
        return self.role.trainable

    def under(self, path: str) -> Parameter:
        """The same parameter, named from the container that holds its layer at `path`."""
        return self._replace(name=f"{path}.{self.name}") if path else self


WeightInit = Literal["fan_in_uniform", "kaiming_uniform", "kaiming_normal", "xavier_normal", "xavier_uniform"]
"""fan_in_uniform: U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default; the others as He and Glorot define them."""


def weight_init(scheme: WeightInit, fan_in: int, fan_out: int) -> Init:
    """The distribution of a weight with `fan_in` inputs and `fan_out` outputs a unit (He's gain is sqrt(2))."""
    if scheme == "fan_in_uniform":
        return Init("uniform", 1 / math.sqrt(fan_in))
    if scheme == "kaiming_uniform":
        return Init("uniform", math.sqrt(6 / fan_in))
    if scheme == "kaiming_normal":
        return Init("normal", math.sqrt(2 / fan_in))
    if scheme == "xavier_uniform":
        return Init("uniform", math.sqrt(6 / (fan_in + fan_out)))
    return Init("normal", math.sqrt(2 / (fan_in + fan_out)))


def draw(parameters: Iterable[Parameter], seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Initial arrays by canonical name, float32: drawn by NumPy in float64, then rounded.

    Each parameter has a stream of its own, from the seed and its name: two specs that share a layer's name
    and shape share its initial weights.

    Raises:
        SpecError: `seed` is not an integer in [0, 2**63), or `parameters` are none.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63:
        raise SpecError(f"seed: expected an integer in [0, 2**63), got {seed!r}")
    found = list(parameters)
    if any(not isinstance(p, Parameter) for p in found):
        raise SpecError("draw: expected parameters, as of a spec: draw(spec.parameters(), seed)")
    return {p.name: _draw_one(p, int(seed)) for p in found}


def _draw_one(parameter: Parameter, seed: int) -> npt.NDArray[np.float32]:
    distribution, value = parameter.init
    if distribution == "constant":
        return np.full(parameter.shape, value, np.float32)
    generator = np.random.default_rng([seed, zlib.crc32(parameter.name.encode())])
    if distribution == "uniform":
        return generator.uniform(-value, value, parameter.shape).astype(np.float32)
    return generator.normal(0.0, value, parameter.shape).astype(np.float32)
