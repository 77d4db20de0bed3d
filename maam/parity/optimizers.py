"""The reference for optimizers: one step in NumPy float64, as `maam.training.Optimizer` defines it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from maam.backend.optimizer import Optimizer
from maam.backend.protocol import OptimizerState
from maam.parity.kinks import GradientReference
from maam.spec import Node
from maam.tolerance import NONE, STATISTICS, STEP, Allowance, Difference, difference, worse

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
Update = tuple[Array, list[Array]]
SQUARED = "exp_avg_sq"
NO_ALLOWANCE = Allowance()


class Outcome(NamedTuple):
    """The state after a training step.

    Attributes:
        arrays: parameters and running statistics by canonical name.
        state: the optimizer's state.
    """

    arrays: dict[str, Array]
    state: OptimizerState


def take_step(
    optimizer: Optimizer, spec: Node, weights: Arrays, gradients: Arrays, state: OptimizerState, lr: float
) -> Outcome:
    """Update all trainable parameters once.

    Args:
        optimizer: the rule and its settings.
        spec: the architecture; it determines which parameters decay.
        weights: the parameters by canonical name, of any dtype.
        gradients: their gradients, of any dtype.
        state: the optimizer's state before the step.
        lr: the learning rate.

    Returns:
        The parameters and the optimizer's state after the step, float64.
    """
    rule = _sgd if optimizer.name == "sgd" else _adam
    arrays: dict[str, Array] = {}
    moments: dict[str, dict[str, Array]] = {moment: {} for moment in optimizer.moments}
    for parameter in (parameter for parameter in spec.parameters() if parameter.trainable):
        name = parameter.name
        factor = optimizer.lr_factor(parameter)
        decay = optimizer.weight_decay / factor if optimizer.decays(parameter) else 0.0
        before = [state.moments[moment][name].astype(np.float64) for moment in optimizer.moments]
        w, g = weights[name].astype(np.float64), gradients[name].astype(np.float64)
        arrays[name], after = rule(optimizer, w, g, before, decay, lr * factor, state.step + 1)
        for moment, array in zip(optimizer.moments, after, strict=True):
            moments[moment][name] = array
    return Outcome(arrays, OptimizerState(state.step + 1, moments))


def gradient_share(optimizer: Optimizer) -> float:
    """Return the factor of a gradient in the first moment, which is linear in it."""
    return 1.0 if optimizer.name == "sgd" else 1 - optimizer.betas[0]


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


class StepDifferences:
    """The largest differences of a runner from the reference over several steps.

    Attributes:
        step: of moments and updates.
        layer: the first parameter outside its bound; empty if none is.
        statistics: of running statistics.
        statistics_layer: the first running statistic outside its bound.
        crossed: the number of kinks on the other side.
    """

    def __init__(self) -> None:
        self.step = NONE
        self.statistics = NONE
        self.layer = ""
        self.statistics_layer = ""
        self.crossed = 0

    def add(self, found: Difference, name: str) -> None:
        """Add the difference of a moment or an update."""
        self.layer = self.layer or name if found.used > 1 else self.layer
        self.step = worse(self.step, found)

    def add_statistics(self, found: Difference, name: str) -> None:
        """Add the difference of a running statistic."""
        self.statistics_layer = self.statistics_layer or name if found.used > 1 else self.statistics_layer
        self.statistics = worse(self.statistics, found)


def compare_step(
    found: StepDifferences,
    optimizer: Optimizer,
    reference: GradientReference,
    start: Arrays,
    actual: Outcome,
    expected: Outcome,
    lr: float,
    allowed: Allowance = NO_ALLOWANCE,
) -> None:
    """Compare one step of a runner with the reference and add the differences to `found`.

    Gradient and momentum can cancel, but their rounding errors remain. A moment, or an update by SGD, therefore counts
    as at least as large as the gradient alone would make it.

    Args:
        found: the differences so far; changed in place.
        optimizer: the rule and its settings.
        reference: the float64 gradients and the measured noise.
        start: the weights before the step, the same for both.
        actual: the runner's result.
        expected: the reference's result.
        lr: the learning rate.
        allowed: the factors on the bounds of this runner.
    """
    for name, target in expected.arrays.items():
        if name not in reference.gradients:
            gap = difference(actual.arrays[name], target, STATISTICS.times(allowed.statistics))
            found.add_statistics(gap, name)
            continue
        noise = reference.credit(name, allowed.noise, allowed.most)
        for moment in optimizer.moments:
            least = max(reference.floor, gradient_share(optimizer) * reference.largest[name])
            least = reference.floor**2 if moment == SQUARED else least
            found.add(_compare_moment(moment, noise, least, actual.state, expected.state, name), name)
        compared = _above_noise(optimizer, expected.state, name, noise, reference.largest[name])
        updates = [
            (after[name].astype(np.float64) - start[name])[compared] for after in (actual.arrays, expected.arrays)
        ]
        least = _update_by(optimizer, reference.largest[name], lr)
        slack = noise * max(float(np.abs(updates[1]).max(initial=0)), least) if optimizer.name == "sgd" else 0.0
        representation = 2.0**-22 * np.abs(start[name][compared])
        found.add(difference(updates[0], updates[1], STEP, least, representation + slack), name)


def _update_by(optimizer: Optimizer, gradient: float, lr: float) -> float:
    """Return the update of a weight by SGD for a gradient of this size without momentum; 0 for Adam."""
    if optimizer.name != "sgd":
        return 0.0
    return lr * gradient * (1 + optimizer.momentum if optimizer.nesterov else 1)


def _compare_moment(
    moment: str, noise: float, least: float, actual: OptimizerState, expected: OptimizerState, name: str
) -> Difference:
    found, target = (state.moments[moment][name] for state in (actual, expected))
    largest = max(float(np.abs(target).max(initial=0)), least)
    return difference(found, target, STEP, largest, slack=(2 if moment == SQUARED else 1) * noise * largest)


def _above_noise(optimizer: Optimizer, state: OptimizerState, name: str, noise: float, largest: float) -> Array:
    """Return a mask of the elements whose update is compared: for SGD all of them.

    Adam divides by the size of the gradient, so its update is compared only where noise changes it by less than the
    bound. The noise is that of a gradient of size `largest`; where gradients have canceled, a moment can be smaller.
    """
    if optimizer.name == "sgd":
        return np.ones(state.moments["momentum_buffer"][name].shape, bool)
    first = np.abs(state.moments["exp_avg"][name])
    second = np.sqrt(state.moments[SQUARED][name])
    least = 2 * noise / STEP.relative
    shares = (1 - beta for beta in optimizer.betas)
    floors = [
        least * max(float(m.max()), s**p * largest) for m, s, p in zip((first, second), shares, (1, 0.5), strict=True)
    ]
    return np.asarray((first >= floors[0]) & (second >= floors[1]) & (first > 0))
