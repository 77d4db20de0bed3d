"""Ten training steps, each from the same state in all: what an optimizer does with a gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from maam.parity.bounds import MAX_LEFT_OUT, NONE, STATISTICS, STEP, Bound, Difference, difference, worse
from maam.parity.kinks import Reference, reference
from maam.parity.report import Report, Row, Verdict, not_run, row
from maam.parity.subject import Subject
from maam.spec import Dropout
from maam.training import Optimizer, Runner, Trainer, one_cycle
from maam.training.protocol import OptimizerState

Array = np.ndarray[Any, Any]
STEPS = 10
NOISE_MARGIN = 3.0
"""How much larger than PyTorch's rounding noise in a gradient another framework's may be."""
TRIES = 4
KINK = Bound(1e-3, 0.0, scaled=True)

OPTIMIZERS = {
    "sgd": Optimizer(learning_rate=0.05, momentum=0.9, nesterov=True, weight_decay=5e-3),
    "adam": Optimizer(name="adam", learning_rate=1e-3, weight_decay=5e-3),
    "adamw": Optimizer(name="adamw", learning_rate=1e-3, weight_decay=5e-2),
}


class Worst:
    """The worst difference of each kind over the steps, and the first parameter that broke its bound."""

    def __init__(self) -> None:
        self.step = NONE
        self.statistics = NONE
        self.layer = ""
        self.statistics_layer = ""

    def add(self, found: Difference, name: str) -> None:
        """A moment or an update."""
        self.layer = self.layer or name if found.used > 1 else self.layer
        self.step = worse(self.step, found)

    def add_statistics(self, found: Difference, name: str) -> None:
        """A running statistic."""
        self.statistics_layer = self.statistics_layer or name if found.used > 1 else self.statistics_layer
        self.statistics = worse(self.statistics, found)


def compare_steps(subject: Subject, report: Report) -> Iterator[Row]:
    """Moments, updates and running statistics after each of ten steps with a one-cycle schedule."""
    reason = _obstacle(subject)
    for name, optimizer in OPTIMIZERS.items():
        stage = f"ten steps, {name}"
        if reason is not None:
            for runner in subject.runners:
                yield _skipped(stage, runner.name, reason)
            continue
        for runner, worst in zip(subject.runners, _compare_steps(subject, optimizer), strict=True):
            layer = report.first_difference or worst.layer
            yield row(stage, runner.name, worst.step, STEP, layer)
            if worst.statistics.used > 1:
                yield row(f"{stage}, statistics", runner.name, worst.statistics, STATISTICS, worst.statistics_layer)


def _obstacle(subject: Subject) -> str | None:
    if subject.double is None:
        return "the referee of steps is PyTorch in float64; run: pip install 'maam[torch]'"
    if len(subject.spec.output_shape(subject.images.shape[1:])) != 1:
        return "no logits"
    if any(isinstance(node, Dropout) for _, node in subject.spec.walk()):
        return "dropout is random; compare with dropout=0"
    return None


def _skipped(stage: str, runner: str, reason: str) -> Row:
    if reason == "no logits":
        return Row(stage, runner, Verdict.NOT_APPLICABLE, note="a layer has no logits to train by")
    return not_run([stage], runner, reason)[0]


def _compare_steps(subject: Subject, optimizer: Optimizer) -> list[Worst]:
    double = subject.double
    assert double is not None
    lead = double.trainer(optimizer)
    trainers = [runner.trainer(optimizer) for runner in subject.runners]
    before = [runner.read_arrays() for runner in subject.runners]
    found = [Worst() for _ in subject.runners]
    arrays: dict[str, Array] = dict(subject.fresh)
    state = _rounded(lead.read_state(), 0)
    batch = 0
    for index in range(STEPS):
        rate = one_cycle(index + 1, STEPS + 1, optimizer.learning_rate)
        batch, gradient = _stable_step(subject, double, arrays, batch)
        x, labels = subject.batch(batch)
        batch += 1
        after, moments = _step(double, lead, arrays, state, x, labels, rate)
        for runner, trainer, worst in zip(subject.runners, trainers, found, strict=True):
            own_after, own_moments = _step(runner, trainer, arrays, state, x, labels, rate)
            _judge(worst, optimizer, gradient, arrays, (own_after, own_moments), (after, moments))
        arrays = {name: array.astype(np.float32) for name, array in after.items()}
        state = _rounded(moments, index + 1)
    for runner, kept in zip(subject.runners, before, strict=True):
        runner.write_arrays(kept)
    return found


def _rounded(state: OptimizerState, step: int) -> OptimizerState:
    moments = {
        moment: {name: array.astype(np.float32) for name, array in arrays.items()}
        for moment, arrays in state.moments.items()
    }
    return OptimizerState(step, moments)


def _stable_step(subject: Subject, double: Runner, arrays: dict[str, Array], start: int) -> tuple[int, Reference]:
    """The first of a few batches whose gradient kinks hardly touch, or the least touched."""
    best: tuple[int, Reference] | None = None
    for index in range(start, start + TRIES):
        x, labels = subject.batch(index)
        cotangent = _loss_cotangent(double, arrays, x, labels)
        found = reference(subject, double, arrays, x, cotangent, KINK)
        if best is None or found.share < best[1].share:
            best = index, found
        if found.share <= MAX_LEFT_OUT / 2:
            break
    assert best is not None
    return best


def _loss_cotangent(double: Runner, arrays: dict[str, Array], x: Array, labels: Array) -> Array:
    """The gradient of mean cross entropy with respect to the logits: (softmax - one-hot) / N."""
    double.write_arrays(arrays)
    logits = double.forward(x, training=True)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = powers / powers.sum(1, keepdims=True)
    probabilities[np.arange(len(labels)), labels] -= 1
    return np.asarray(probabilities / len(labels))


def _step(
    runner: Runner,
    trainer: Trainer,
    arrays: dict[str, Array],
    state: OptimizerState,
    x: Array,
    labels: Array,
    rate: float,
) -> tuple[dict[str, Array], OptimizerState]:
    runner.write_arrays(arrays)
    trainer.write_state(state)
    trainer.step(x, labels, rate)
    return runner.read_arrays(), trainer.read_state()


Outcome = tuple[dict[str, Array], OptimizerState]


def _judge(
    worst: Worst, optimizer: Optimizer, gradient: Reference, start: dict[str, Array], own: Outcome, expected: Outcome
) -> None:
    for name, target in expected[0].items():
        if name not in gradient.gradients:
            worst.add_statistics(difference(own[0][name], target, STATISTICS), name)
            continue
        clear = ~gradient.left_out[name]
        noise = min(NOISE_MARGIN * gradient.noise[name], KINK.absolute)
        for moment in optimizer.moments:
            worst.add(_moment_difference(moment, clear, noise, gradient.floor, own[1], expected[1], name), name)
        kept = clear & _above_noise(optimizer, expected[1], name, noise)
        updates = [(after[name].astype(np.float64) - start[name])[kept] for after in (own[0], expected[0])]
        allowed = 0.0 if optimizer.name != "sgd" else noise * float(np.abs(updates[1]).max(initial=0))
        rounding = 2.0**-22 * np.abs(start[name][kept])
        worst.add(difference(updates[0], updates[1], STEP, slack=rounding + allowed), name)


def _moment_difference(
    moment: str, clear: Array, noise: float, floor: float, own: OptimizerState, expected: OptimizerState, name: str
) -> Difference:
    actual, target = (state.moments[moment][name][clear] for state in (own, expected))
    squared = moment == "exp_avg_sq"
    largest = max(float(np.abs(target).max(initial=0)), floor**2 if squared else floor)
    return difference(actual, target, STEP, largest, slack=(2 if squared else 1) * noise * largest)


def _above_noise(optimizer: Optimizer, state: OptimizerState, name: str, noise: float) -> Array:
    """Adam divides by the gradient's own size: its update is compared where noise moves it less than the bound."""
    if optimizer.name == "sgd":
        return np.ones(state.moments["momentum_buffer"][name].shape, bool)
    first = np.abs(state.moments["exp_avg"][name])
    second = np.sqrt(state.moments["exp_avg_sq"][name])
    least = 2 * noise / STEP.relative
    return np.asarray((first >= least * first.max()) & (second >= least * second.max()) & (first > 0))
