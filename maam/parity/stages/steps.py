"""Ten training steps, each from the same state in all: what an optimizer does with a gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from maam.parity.bounds import MAX_LEFT_OUT, STATISTICS, STEP
from maam.parity.kinks import Reference, reference
from maam.parity.report import Report, Row, Verdict, not_run, row
from maam.parity.step_judgement import KINK, Worst, judge
from maam.parity.subject import Subject
from maam.spec import Dropout
from maam.training import Optimizer, Runner, Trainer, one_cycle
from maam.training.protocol import OptimizerState

Array = np.ndarray[Any, Any]
STEPS = 10
TRIES = 4
ATTEMPTS = 3
EFFORT = 4
"""How much harder a step that breaks its bound is searched for kinks before it counts."""

OPTIMIZERS = {
    "sgd": Optimizer(lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-3),
    "adam": Optimizer(name="adam", lr=1e-3, weight_decay=5e-3),
    "adamw": Optimizer(name="adamw", lr=1e-3, weight_decay=5e-2),
}


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
        rate = one_cycle(index + 1, STEPS + 1, optimizer.lr)
        for _ in range(ATTEMPTS):
            batch, gradient = _stable_step(subject, double, arrays, batch)
            x, labels = subject.batch(batch)
            outcome = _step(double, lead, arrays, state, x, labels, rate)
            own = [_step(r, t, arrays, state, x, labels, rate) for r, t in zip(subject.runners, trainers, strict=True)]
            trial = [judge(optimizer, gradient, arrays, one, outcome) for one in own]
            if all(worst.step.used <= 1 for worst in trial):
                break
            gradient = _stable(subject, double, arrays, batch, effort=EFFORT)
            batch += 1
            if gradient.share <= MAX_LEFT_OUT:  # few kinks: what differs besides them counts
                trial = [judge(optimizer, gradient, arrays, one, outcome) for one in own]
                break
        batch += 1
        for worst, one in zip(found, trial, strict=True):
            worst.include(one)
        arrays = {name: array.astype(np.float32) for name, array in outcome[0].items()}
        state = _rounded(outcome[1], index + 1)
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
        found = _stable(subject, double, arrays, index)
        if best is None or found.share < best[1].share:
            best = index, found
        if found.share <= MAX_LEFT_OUT / 2:
            break
    assert best is not None
    return best


def _stable(subject: Subject, double: Runner, arrays: dict[str, Array], batch: int, effort: int = 1) -> Reference:
    x, labels = subject.batch(batch)
    cotangent = _loss_cotangent(double, arrays, x, labels)
    return reference(subject, double, arrays, x, cotangent, KINK, effort)


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
