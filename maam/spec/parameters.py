"""Parameters of a model: canonical name, shape, role and initial distribution of each array."""

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
    """Role of an array; backends derive their own parameter names from it.

    Example:
        >>> from maam import spec
        >>> [p.role.value for p in spec.Conv2d(in_channels=3, out_channels=8, kernel_size=3).parameters()]
        ['weight', 'bias']
    """

    WEIGHT = "weight"
    BIAS = "bias"
    NORM_WEIGHT = "norm_weight"
    NORM_BIAS = "norm_bias"
    RUNNING_MEAN = "running_mean"
    RUNNING_VAR = "running_var"
    RECURRENT = "recurrent"
    FUSION = "fusion"
    FREE = "free"

    @property
    def trainable(self) -> bool:
        """Whether the optimizer updates the array; forward passes in training mode update running statistics."""
        return self not in (Role.RUNNING_MEAN, Role.RUNNING_VAR)


class Init(NamedTuple):
    """Initial distribution: constant `value`, uniform(-value, value), or normal with mean 0 and deviation `value`.

    Example:
        >>> from maam import spec
        >>> spec.BatchNorm2d(num_features=8).parameters()[0].init
        Init(distribution='constant', value=1.0)
    """

    distribution: Literal["constant", "uniform", "normal"]
    value: float


ZEROS = Init("constant", 0.0)
ONES = Init("constant", 1.0)


class Parameter(NamedTuple):
    """Parameter or buffer of a spec.

    Attributes:
        name: the canonical name, which is the key in a PyTorch state_dict.
        shape: the shape of the array.
        role: what the array is for.
        init: the initial distribution.

    Example:
        >>> from maam import spec
        >>> parameter = spec.Linear(in_features=64, out_features=10).parameters()[0]
        >>> parameter.name, parameter.shape, parameter.size
        ('weight', (10, 64), 640)
    """

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
        """Whether the optimizer updates the array."""
        return self.role.trainable

    def under(self, path: str) -> Parameter:
        """Return the parameter with `path` in front of its name."""
        return self._replace(name=f"{path}.{self.name}") if path else self


WeightInit = Literal["fan_in_uniform", "kaiming_uniform", "kaiming_normal", "xavier_normal", "xavier_uniform", "zeros"]
"""fan_in_uniform: uniform(-1/sqrt(fan_in), 1/sqrt(fan_in)), the default of PyTorch. kaiming: He. xavier: Glorot."""


def weight_init(scheme: WeightInit, fan_in: int, fan_out: int) -> Init:
    """Return the distribution of a weight with `fan_in` inputs and `fan_out` outputs; He's have a gain of sqrt(2)."""
    if scheme == "zeros":
        return ZEROS
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
    """Return initial weights, the same in every backend.

    NumPy draws each array in float64 from its own random stream, which depends on the seed and on the parameter's name,
    and rounds it to float32.

    Args:
        parameters: the parameters of a spec.
        seed: an integer from 0 to 2**63 - 1.

    Returns:
        float32 arrays by canonical name.

    Raises:
        SpecError: `seed` is not an integer in this range, or `parameters` contains an object of another type.

    Example:
        >>> from maam import spec
        >>> arrays = spec.draw(spec.se(64).parameters(), seed=0)
        >>> arrays["fc1.weight"].shape, arrays["fc1.weight"].dtype
        ((4, 64, 1, 1), dtype('float32'))
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63:
        raise SpecError(f"seed: expected an integer in [0, 2**63), got {seed!r}")
    found = list(parameters)
    if any(not isinstance(p, Parameter) for p in found):
        raise SpecError("draw: expected the parameters of a spec: draw(spec.parameters(), seed)")
    return {p.name: _draw_one(p, int(seed)) for p in found}


def _draw_one(parameter: Parameter, seed: int) -> npt.NDArray[np.float32]:
    distribution, value = parameter.init
    if distribution == "constant":
        return np.full(parameter.shape, value, np.float32)
    generator = np.random.default_rng([seed, zlib.crc32(parameter.name.encode())])
    if distribution == "uniform":
        return generator.uniform(-value, value, parameter.shape).astype(np.float32)
    return generator.normal(0.0, value, parameter.shape).astype(np.float32)
