"""The referee of optimizers: one step in NumPy float64, as `maam.training.Optimizer` defines it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from maam.spec import Node
from maam.training import Optimizer
from maam.training.protocol import OptimizerState

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
