"""The referee of optimizers: one step in NumPy float64, as `maam.training.Optimizer` defines it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from maam.backend.protocol import OptimizerState
from maam.parity.kinks import Reference
from maam.parity.tolerance import Rounding
from maam.spec import Node
from maam.tolerance import NONE, STATISTICS, STEP, Difference, difference, worse
from maam.training import Optimizer

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]


class Outcome(NamedTuple):
    """Parameters (and running statistics), and the optimizer's state, after a step."""

    arrays: dict[str, Array]
    state: OptimizerState


def take_step(
    optimizer: Optimizer, spec: Node, weights: Arrays, gradients: Arrays, state: OptimizerState, lr: float
) -> Outcome:
    """One update of all trainable parameters; arrays by canonical name, of any dtype, taken and returned in float64."""
    rule = _sgd if optimizer.name == "sgd" else _adam
    arrays: dict[str, Array] = {}
    moments: dict[str, dict[str, Array]] = {moment: {} for moment in optimizer.moments}
    for parameter in (parameter for parameter in spec.parameters() if parameter.trainable):
        name = parameter.name
        decay = optimizer.weight_decay if optimizer.decays(parameter) else 0.0
        before = [state.moments[moment][name].astype(np.float64) for moment in optimizer.moments]
        w, g = weights[name].astype(np.float64), gradients[name].astype(np.float64)
        arrays[name], after = rule(optimizer, w, g, before, decay, lr, state.step + 1)
        for moment, array in zip(optimizer.moments, after, strict=True):
            moments[moment][name] = array
    return Outcome(arrays, OptimizerState(state.step + 1, moments))


def gradient_share(optimizer: Optimizer) -> float:
    """What share of a gradient goes into the first moment, which is linear in it."""
    return 1.0 if optimizer.name == "sgd" else 1 - optimizer.betas[0]


Update = tuple[Array, list[Array]]


def _sgd(optimizer: Optimizer, w: Array, g: Array, moments: list[Array], decay: float, lr: float, step: int) -> Update:
    d = g + decay * w
    b = optimizer.momentum * moments[0] + d
    return w - lr * (d + optimizer.momentum * b if optimizer.nesterov else b), [b]


def _adam(optimizer: Optimizer, w: Array, g: Array, moments: list[Array], decay: float, lr: float, step: int) -> Update:
    beta1, beta2 = optimizer.betas
    decoupled = optimizer.name == "adamw"
    d = g if decoupled else g + decay * w
    m = beta1 * moments[0] + (1 - beta1) * d
    v = beta2 * moments[1] + (1 - beta2) * d**2
    direction = m / (1 - beta1**step) / (np.sqrt(v / (1 - beta2**step)) + optimizer.eps)
    return w * (1 - lr * decay if decoupled else 1.0) - lr * direction, [m, v]


SQUARED = "exp_avg_sq"


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
    rounding: Rounding = Rounding(),  # noqa: B008
) -> None:
    """Hold one runner's step (`own`) to the referee's, both from the weights `start`; what is found goes to `worst`.

    `rounding` is what is allowed for besides in this runner. A moment, and an update by SGD, counts as
    at least as large as what the gradient alone makes of it: where gradient and momentum cancel, rounding stays.
    """
    for name, target in expected.arrays.items():
        if name not in reference.gradients:
            worst.add_statistics(difference(own.arrays[name], target, STATISTICS.times(rounding.statistics)), name)
            continue
        noise = reference.credit(name, rounding.noise, rounding.most)
        for moment in optimizer.moments:
            least = max(reference.floor, gradient_share(optimizer) * reference.largest[name])
            least = reference.floor**2 if moment == SQUARED else least
            worst.add(_moment_difference(moment, noise, least, own.state, expected.state, name), name)
        kept = _above_noise(optimizer, expected.state, name, noise, reference.largest[name])
        updates = [(after[name].astype(np.float64) - start[name])[kept] for after in (own.arrays, expected.arrays)]
        least = _update_by(optimizer, reference.largest[name], lr)
        allowed = noise * max(float(np.abs(updates[1]).max(initial=0)), least) if optimizer.name == "sgd" else 0.0
        representation = 2.0**-22 * np.abs(start[name][kept])
        worst.add(difference(updates[0], updates[1], STEP, least, representation + allowed), name)


def _update_by(optimizer: Optimizer, gradient: float, lr: float) -> float:
    """How far SGD moves a weight by a gradient of this size: by itself, and by the momentum that it becomes part of."""
    if optimizer.name != "sgd":
        return 0.0
    return lr * gradient * (1 + optimizer.momentum if optimizer.nesterov else 1)


def _moment_difference(
    moment: str, noise: float, least: float, own: OptimizerState, expected: OptimizerState, name: str
) -> Difference:
    actual, target = (state.moments[moment][name] for state in (own, expected))
    largest = max(float(np.abs(target).max(initial=0)), least)
    return difference(actual, target, STEP, largest, slack=(2 if moment == SQUARED else 1) * noise * largest)


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
