"""What parity means, as numbers: the bound of each stage, and how arrays are held to it.

Every bound is absolute / relative against the float64 referee: |a - r| <= absolute * scale + relative * |r|. The
scale is 1 for values of order 1 and grows with the tensor's largest value; for gradients, moments and updates, which
can be of any order, it is the tensor's largest value itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Bound(NamedTuple):
    """Absolute and relative tolerance; `scaled` makes the absolute one a share of the tensor's largest value."""

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
        """A bound `factor` times as wide."""
        return Bound(self.absolute * factor, self.relative * factor, self.scaled)


EXACT = Bound(0.0, 0.0)
LAYER = Bound(1e-5, 1e-5)
LOGITS = Bound(1e-4, 1e-4)
GRADIENT = Bound(1e-4, 0.0, scaled=True)
STATISTICS = Bound(1e-6, 1e-5)
STEP = Bound(1e-5, 1e-3, scaled=True)
MAX_NOISE = 1e-4
"""The most that rounding noise, where it was measured, may add to a bound on gradients, as a share of the largest."""
TRAINED_GRADIENT_FACTOR = 3.0
CROWDED_FACTOR = 3.0
"""How many times PyTorch's own float32 error a gradient may be off where kinks are too many to settle."""
FREE_RUN_FACTOR = 3.0
MAX_CROSSED = 1e-3
"""The share of the values at kinks that may be on the other side than in float64."""
SIGNAL_TO_NOISE = {"float16": 40.0, "bfloat16": 25.0}
"""In decibels."""


class Difference(NamedTuple):
    """The worst absolute difference, the same as a share of the largest expected value, and the bound used up.

    `used` is the worst ratio of a difference to what the bound allows there; above 1 the bound is broken.
    """

    absolute: float
    relative: float
    used: float


NONE = Difference(0.0, 0.0, 0.0)


def difference(
    actual: Array, expected: Array, bound: Bound, floor: float = 0.0, slack: Array | float = 0.0
) -> Difference:
    """Hold `actual` to `expected` (any shape, the same for both).

    Args:
        actual: what a framework computed.
        expected: what the referee computed, float64.
        bound: the tolerance.
        floor: for a scaled bound, the least value that counts as the tensor's largest.
        slack: what is allowed besides, for each element.
    """
    if actual.shape != expected.shape:
        return Difference(np.inf, np.inf, np.inf)
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
    """Field by field the larger one; a share of NaN is past every bound."""
    used = math.inf if math.isnan(a.used) or math.isnan(b.used) else max(a.used, b.used)
    return Difference(max(a.absolute, b.absolute), max(a.relative, b.relative), used)


def root_mean_square(values: Iterable[float]) -> float:
    """Of some errors."""
    return float(np.sqrt(np.mean(np.square(list(values)))))


def signal_to_noise(actual: Array, expected: Array) -> float:
    """10 log10(sum expected^2 / sum (actual - expected)^2), in decibels."""
    noise = float(((actual.astype(np.float64) - expected) ** 2).sum())
    signal = float((expected**2).sum())
    if not np.isfinite(noise):
        return -np.inf
    return np.inf if noise == 0 else float(10 * np.log10(max(signal, 1e-300) / noise))
