"""The bounds: every number that decides whether two results agree, and the functions that compare arrays.

Parity, porting, export, quantization and `maam.torch.optimize` take their bounds from here. A bound has an absolute
and a relative part: |actual - expected| <= absolute * scale + relative * |expected|. The scale is 1, or the largest
value of the tensor if that is above 1. For gradients, moments and updates, which can be of any size, the scale is
always the largest value of the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Bound(NamedTuple):
    """An absolute and a relative tolerance.

    Attributes:
        absolute: the tolerance for every element.
        relative: the tolerance as a share of the expected element.
        scaled: whether `absolute` is a share of the tensor's largest value.
    """

    absolute: float
    relative: float
    scaled: bool = False

    def __str__(self) -> str:
        if not self.absolute and not self.relative:
            return "0"
        if self.scaled and not self.relative:
            return f"{self.absolute:.0e} of largest"
        return f"{self.absolute:.0e}{' of largest' if self.scaled else ''} / {self.relative:.0e}"

    def times(self, factor: float) -> Bound:
        """Return a bound that is `factor` times as wide."""
        return Bound(self.absolute * factor, self.relative * factor, self.scaled)


EXACT = Bound(0.0, 0.0)
LAYER = Bound(1e-5, 1e-5)
LOGITS = Bound(1e-4, 1e-4)
REDUCED_LOGITS = 1e-2
"""The largest difference of logits on a GPU or on Ascend, whose float32 convolutions may round to TF32 or HF32."""
GRADIENT = Bound(1e-4, 0.0, scaled=True)
STATISTICS = Bound(1e-6, 1e-5)
STEP = Bound(1e-5, 1e-3, scaled=True)
FUSED_REFERENCE = Bound(1e-12, 0.0, scaled=True)
"""For the fused form in the float64 reference."""
SIGNAL_TO_NOISE = {"float16": 40.0, "bfloat16": 25.0}
"""The smallest signal-to-noise ratio of outputs in half precision, in decibels."""
INT8_SIGNAL_TO_NOISE = 6.0
"""The same for int8 models. At this ratio the noise is half as large as the signal."""

TRAINED_GRADIENT_FACTOR = 3.0
"""The largest error of a gradient at trained weights, in units of PyTorch's own float32 error."""
CROWDED_FACTOR = 3.0
"""The same in a network with too many values near kinks to determine their sides."""
FREE_RUN_FACTOR = 3.0
"""The largest distance of a free run from PyTorch's, in units of the measured noise floor."""
LOSS_ROUNDING = 2.0**-22
"""The smallest noise floor of a free run, as a share of the loss: two units in the last place."""
MAX_CROSSED = 1e-3
"""The largest share of the values at kinks that may be on another side than in float64."""
DEEP = 32
"""A network with more batch norms, or more layers with kinks, is deep: rounding adds up over its layers."""

GRADIENT_FLOOR = 1e-2
"""A gradient's largest value counts as at least this share of the network's largest; smaller ones are rounding."""
NOISE_MARGIN = 3.0
"""How many times PyTorch's measured rounding noise is added to the bound of a gradient."""
MAX_NOISE = 1e-4
"""The most that noise adds to the bound of a gradient, as a share of the tensor's largest value."""
SMALL_GRADIENT = 0.1
"""A tensor whose largest gradient is under this share of the network's gets the noise of a tensor of that size."""
ZERO_GRADIENT = 1e-12
"""A gradient up to this share of the network's largest is pure rounding, such as that of a bias before a batch norm."""
ZERO_MARGIN = 10.0
"""`NOISE_MARGIN` for such a gradient, whose value depends on the order in which a framework sums."""


class Allowance(NamedTuple):
    """Factors on the bounds of a runner whose sums over a batch are less exact than eager PyTorch's.

    Attributes:
        trained: the factor on the error of gradients at trained weights.
        statistics: the factor on the bound of running statistics in a deep network.
        noise: the factor on the noise that is added to the bound in the ten steps of a deep network.
        most: the factor on the limit of that noise.
    """

    trained: float = 1.0
    statistics: float = 1.0
    noise: float = 1.0
    most: float = 1.0


# Eager PyTorch sums pairwise. For sums over a batch of maps (statistics and gradients of a batch norm, gradients of
# fusion weights), the error of MindSpore is 2 to 4 times as large, and that of torch.compile on a CPU, which sums in
# longer runs, 1 to 7 times. `python -m benchmarks sums` measures it for one batch norm.
# https://github.com/pytorch/pytorch/issues/151400, https://github.com/pytorch/pytorch/pull/156296
SERIAL_SUMS = Allowance(noise=10 / 3)
LONG_SERIAL_SUMS = Allowance(trained=10 / 3, statistics=10 / 3, noise=10 / 3, most=10)

PORT_MARGIN = TRAINED_GRADIENT_FACTOR
"""In a port: the allowed error, in units of the effect of rounding on PyTorch's own result."""
PORT_MAX_ROUNDING = 1e-3
"""In a port: the most that rounding adds to the bound of an output, as a share of its largest value (at least 1)."""
PORT_GRADIENT = Bound(1e-3, 0.0, scaled=True)
"""In a port: the error of a gradient's norm that is always allowed, because values near kinks are not moved."""
PORT_MAX_ALLOWED = 0.3
"""In a port: a tensor is not compared if the allowed error exceeds this share, because rounding alone explains it."""


class Difference(NamedTuple):
    """The result of a comparison.

    Attributes:
        absolute: the largest absolute difference.
        relative: the same as a share of the largest expected value.
        used: the largest ratio of a difference to the bound; above 1 the comparison fails.
    """

    absolute: float
    relative: float
    used: float


NONE = Difference(0.0, 0.0, 0.0)
BROKEN = Difference(math.inf, math.inf, math.inf)


def difference(
    actual: Array, expected: Array, bound: Bound, floor: float = 0.0, slack: Array | float = 0.0
) -> Difference:
    """Compare an array with the expected one; a different shape or a NaN exceeds every bound.

    Args:
        actual: the result of a framework, of any shape.
        expected: the float64 reference, of the same shape.
        bound: the tolerance.
        floor: the least that counts as the tensor's largest value for a scaled bound.
        slack: an additional absolute tolerance, for all elements or for each.

    Example:
        >>> import numpy as np
        >>> from maam.tolerance import LAYER, difference
        >>> difference(np.array([1.0, 2.00001]), np.array([1.0, 2.0]), LAYER).used <= 1
        True
    """
    if actual.shape != expected.shape:
        return BROKEN
    if expected.size == 0:
        return NONE
    gap = np.abs(actual.astype(np.float64) - expected)
    largest = float(np.abs(expected).max())
    scale = max(largest, floor) if bound.scaled else max(largest, 1.0)
    allowed = bound.absolute * scale + bound.relative * np.abs(expected) + slack
    with np.errstate(divide="ignore", invalid="ignore"):
        used = np.where(gap == 0, 0.0, gap / allowed)
    worst = float(np.nan_to_num(gap, nan=np.inf).max())
    return Difference(
        worst, worst / largest if largest else worst, float(np.nan_to_num(used, nan=np.inf, posinf=np.inf).max())
    )


def worse(a: Difference, b: Difference) -> Difference:
    """Return the larger value of each field; a NaN counts as infinite use of the bound."""
    used = math.inf if math.isnan(a.used) or math.isnan(b.used) else max(a.used, b.used)
    return Difference(max(a.absolute, b.absolute), max(a.relative, b.relative), used)


def root_mean_square(values: Iterable[float]) -> float:
    """Return the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(list(values)))))


def signal_to_noise(actual: Array, expected: Array) -> float:
    """Return 10 log10(sum expected^2 / sum (actual - expected)^2), in decibels."""
    noise = float(((actual.astype(np.float64) - expected) ** 2).sum())
    signal = float((expected**2).sum())
    if not np.isfinite(noise):
        return -np.inf
    return np.inf if noise == 0 else float(10 * np.log10(max(signal, 1e-300) / noise))
