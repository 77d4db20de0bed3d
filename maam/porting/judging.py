"""How far a tensor may be off: parity's bounds, and what rounding alone does, measured on the same model.

The referee is the PyTorch module in float64. Its own float32 run, and float64 runs whose weights and input are moved by
eight float32 units in the last place, ought to agree with it: how far they part is what rounding does in this model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from maam.parity.bounds import TRAINED_GRADIENT_FACTOR, Bound, Difference, difference
from maam.porting.half import Half

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
MARGIN = TRAINED_GRADIENT_FACTOR
"""How many times what rounding does to PyTorch a value may be off."""
MOST = 1e-3
"""The most, as a share of a tensor's largest value (1 at least), that rounding excuses in a pass forward."""
LEAST = Bound(1e-3, 0.0, scaled=True)
"""Allowed in any case to the norm of a gradient, as a share of it: no kink of a ReLU is left out here."""
FLOOR = 1e-2
"""A tensor counts as at least this share of the largest: what is all but 0 is all rounding."""
PERTURBATIONS = 3
NUDGE = 8 * 2.0**-23
"""About as far as float32 moves a value after a few layers."""
VAIN = 0.3
"""Where rounding alone moves a tensor by a tenth of itself, nothing can be said about it."""


def held(actual: Array, expected: Array, single: Array, bound: Bound) -> Difference:
    """Hold `actual` to the float64 `expected`; `single` is what PyTorch computes in float32."""
    if actual.shape != expected.shape:
        return Difference(np.inf, np.inf, np.inf)
    expected = expected.astype(np.float64)
    rounding = MARGIN * float(np.abs(single - expected).max(initial=0))
    slack = min(rounding, MOST * max(1.0, float(np.abs(expected).max(initial=0))))
    return difference(actual, expected, bound, slack=slack)


def errors(actual: Arrays, expected: Arrays) -> dict[str, float]:
    """For each tensor the norm of the error, as a share of the norm of the tensor; infinity where it is no number."""
    sizes = {name: float(np.linalg.norm(array)) / max(array.size, 1) ** 0.5 for name, array in expected.items()}
    floor = max(FLOOR * max(sizes.values(), default=0.0), 1e-300)
    found = {}
    for name, array in expected.items():
        error = float(np.linalg.norm(actual[name].astype(np.float64) - array)) / max(array.size, 1) ** 0.5
        found[name] = float(np.nan_to_num(error / max(sizes[name], floor), nan=np.inf, posinf=np.inf))
    return found


def allowances(expected: Arrays, others: Sequence[Arrays]) -> dict[str, float]:
    """For each tensor the error that is allowed, from runs that ought to agree with the expected one."""
    found = [errors(other, expected) for other in others]
    return {name: max(LEAST.absolute, MARGIN * max(e[name] for e in found)) for name in expected}


def moved_runs(half: Half, arrays: Arrays, x: Array, run: Callable[[Half, Array], Arrays], seed: int) -> list[Arrays]:
    """What `run` gives for weights and input moved by rounding; the model's arrays are put back."""
    before = half.read()
    found = []
    for index in range(PERTURBATIONS):
        generator = np.random.default_rng([seed, 23, index])
        half.write({name: nudge(array, generator) for name, array in arrays.items()})
        found.append(run(half, nudge(x, generator) if x.dtype.kind == "f" else x))
    half.write(before)
    return found


def nudge(array: Array, generator: np.random.Generator) -> Array:
    """The array in float64, each element moved by eight float32 units in the last place, up or down."""
    return np.asarray(array.astype(np.float64) * (1 + NUDGE * generator.choice([-1.0, 1.0], array.shape)))
