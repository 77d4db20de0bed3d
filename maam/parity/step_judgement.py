"""One training step of one runner against the referee's: moments, updates, running statistics."""

from __future__ import annotations

from typing import Any

import numpy as np

from maam.parity.bounds import NONE, STATISTICS, STEP, Difference, difference, worse
from maam.parity.kinks import Reference
from maam.parity.optimizers import Outcome
from maam.training import Optimizer
from maam.training.protocol import OptimizerState

Array = np.ndarray[Any, Any]


class Worst:
    """The worst difference of each kind over the steps, and the first parameter that broke its bound."""

    def __init__(self) -> None:
        self.step = NONE
        self.statistics = NONE
        self.layer = ""
        self.statistics_layer = ""
        self.crossed = 0

    def add(self, found: Difference, name: str) -> None:
        """A moment or an update."""
        self.layer = self.layer or name if found.used > 1 else self.layer
        self.step = worse(self.step, found)

    def add_statistics(self, found: Difference, name: str) -> None:
        """A running statistic."""
        self.statistics_layer = self.statistics_layer or name if found.used > 1 else self.statistics_layer
        self.statistics = worse(self.statistics, found)


def judge(
    worst: Worst,
    optimizer: Optimizer,
    reference: Reference,
    start: dict[str, Array],
    own: Outcome,
    expected: Outcome,
    lr: float,
    rounding: float = 1.0,
) -> None:
    """Hold one runner's step (`own`) to the referee's, both from the weights `start`; what is found goes to `worst`.

    `rounding` is how many times as much rounding as elsewhere is allowed for. An update by SGD counts as at least that
    of the least gradient that counts: a bias before a batch norm has none.
    """
    for name, target in expected.arrays.items():
        if name not in reference.gradients:
            worst.add_statistics(difference(own.arrays[name], target, STATISTICS.times(rounding)), name)
            continue
        noise = rounding * reference.credit(name)
        for moment in optimizer.moments:
            worst.add(_moment_difference(moment, noise, reference.floor, own.state, expected.state, name), name)
        kept = _above_noise(optimizer, expected.state, name, noise, reference.largest[name])
        updates = [(after[name].astype(np.float64) - start[name])[kept] for after in (own.arrays, expected.arrays)]
        least = lr * reference.floor if optimizer.name == "sgd" else 0.0
        allowed = 0.0 if optimizer.name != "sgd" else noise * max(float(np.abs(updates[1]).max(initial=0)), least)
        representation = 2.0**-22 * np.abs(start[name][kept])
        worst.add(difference(updates[0], updates[1], STEP, least, representation + allowed), name)


def _moment_difference(
    moment: str, noise: float, floor: float, own: OptimizerState, expected: OptimizerState, name: str
) -> Difference:
    actual, target = (state.moments[moment][name] for state in (own, expected))
    squared = moment == "exp_avg_sq"
    largest = max(float(np.abs(target).max(initial=0)), floor**2 if squared else floor)
    return difference(actual, target, STEP, largest, slack=(2 if squared else 1) * noise * largest)


def _above_noise(optimizer: Optimizer, state: OptimizerState, name: str, noise: float, largest: float) -> Array:
    """Adam divides by the gradient's own size: its update is compared where noise moves it less than the bound.

    The noise is that of a gradient whose largest value is `largest`: a moment in which gradients have cancelled may
    be much smaller.
    """
    if optimizer.name == "sgd":
        return np.ones(state.moments["momentum_buffer"][name].shape, bool)
    first = np.abs(state.moments["exp_avg"][name])
    second = np.sqrt(state.moments["exp_avg_sq"][name])
    least = 2 * noise / STEP.relative
    shares = (1 - beta for beta in optimizer.betas)
    floors = [
        least * max(float(m.max()), s**p * largest) for m, s, p in zip((first, second), shares, (1, 0.5), strict=True)
    ]
    return np.asarray((first >= floors[0]) & (second >= floors[1]) & (first > 0))
