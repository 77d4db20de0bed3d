"""Ten training steps, each from the same state in all: what an optimizer does with a gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from maam.backend.protocol import OptimizerState
from maam.parity.kinks import Reference, Settled, calm_batch, crossings
from maam.parity.optimizers import Outcome, Worst, gradient_share, judge, take_step
from maam.parity.report import Report, Row, Verdict, not_run, row
from maam.parity.stages.gradients import smooth_subject
from maam.parity.subject import RANDOM, Subject, has_dropout
from maam.parity.tolerance import rounding
from maam.spec import Node
from maam.tolerance import FREE_RUN_FACTOR, STATISTICS, STEP, Difference
from maam.training import Optimizer, Runner, Trainer, one_cycle

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
STEPS = 10

OPTIMIZERS = {
    "sgd": Optimizer(lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-3),
    "adam": Optimizer(name="adam", lr=1e-3, weight_decay=5e-3),
    "adamw": Optimizer(name="adamw", lr=1e-3, weight_decay=5e-2),
}


def compare_steps(subject: Subject, report: Report) -> Iterator[Row]:
    """Moments, updates and running statistics after each of ten steps with a one-cycle schedule.

    A network in which too many values stand near kinks takes the steps with smooth activations.
    """
    reason = _obstacle(subject)
    subject, remark = (subject, "") if reason is not None else _without_crowds(subject)
    for name, optimizer in OPTIMIZERS.items():
        stage = f"ten steps, {name}"
        if reason is not None:
            for runner in subject.runners:
                yield _skipped(stage, runner.name, reason)
            continue
        for runner, worst in zip(subject.runners, take_steps(subject, optimizer), strict=True):
            layer = report.first_difference or worst.layer
            note = "; ".join(filter(None, (remark, crossings(worst.crossed))))
            yield row(stage, runner.name, worst.step, STEP, layer, note)
            if worst.statistics.used > 1:
                allowed = STATISTICS.times(rounding(runner.name, subject.spec).statistics)
                yield row(f"{stage}, statistics", runner.name, worst.statistics, allowed, worst.statistics_layer)


def _obstacle(subject: Subject) -> str | None:
    if subject.double is None:
        return "the referee of steps is PyTorch in float64; run: pip install 'maam[torch]'"
    if len(subject.spec.output_shape(subject.images.shape[1:])) != 1:
        return "no logits"
    if has_dropout(subject.spec):
        return RANDOM
    return None


def _without_crowds(subject: Subject) -> tuple[Subject, str]:
    x, cotangent = subject.batch(0)[0], _loss_cotangent(subject, dict(subject.fresh), 0)
    if not Reference(subject, subject.fresh, x, cotangent).crowded:
        return subject, ""
    return smooth_subject(subject), "with smooth activations"


def _skipped(stage: str, runner: str, reason: str) -> Row:
    if reason == "no logits":
        return Row(stage, runner, Verdict.NOT_APPLICABLE, note="a layer has no logits to train by")
    return not_run([stage], runner, reason)[0]


def take_steps(subject: Subject, optimizer: Optimizer, start: Outcome | None = None) -> list[Worst]:
    """The worst difference of each runner from the referee over ten steps, each from the same state in all.

    They start from `start`, the weights and state of a run that goes on, or from fresh weights.
    """
    trainers = [runner.trainer(optimizer) for runner in subject.runners]
    before = [runner.read_arrays() for runner in subject.runners]
    found = [Worst() for _ in subject.runners]
    arrays, state = start or Outcome(dict(subject.fresh), _zeros(subject, optimizer))
    batch = 0
    for index in range(STEPS):
        lr = one_cycle(index + 1, STEPS + 1, optimizer.lr)
        batch, reference = calm_batch(subject, arrays, partial(_loss_cotangent, subject, arrays), batch)
        x, labels = subject.batch(batch)
        batch += 1
        statistics = _statistics(subject, arrays, x)
        for runner, trainer, worst in zip(subject.runners, trainers, found, strict=True):
            own = _step(runner, trainer, arrays, state, x, labels, lr)
            settled = _settle(optimizer, subject.spec, reference, arrays, state, own.state, lr, search=not worst.layer)
            expected = take_step(optimizer, subject.spec, arrays, settled.gradients, state, lr)
            expected.arrays.update(statistics)
            worst.crossed += settled.crossed
            judge(worst, optimizer, reference, arrays, own, expected, lr, rounding(runner.name, subject.spec))
        outcome = take_step(optimizer, subject.spec, arrays, reference.gradients, state, lr)
        arrays = {name: array.astype(np.float32) for name, array in (outcome.arrays | statistics).items()}
        state = _rounded(outcome.state)
    for runner, kept in zip(subject.runners, before, strict=True):
        runner.write_arrays(kept)
    return found


def _settle(
    optimizer: Optimizer,
    spec: Node,
    reference: Reference,
    arrays: Arrays,
    state: OptimizerState,
    after: OptimizerState,
    lr: float,
    search: bool,
) -> Settled:
    """The gradients on a runner's side of the kinks, which its first moment shows; one that has failed has none."""
    if not search:
        return Settled(reference.gradients, 0)
    base = take_step(optimizer, spec, arrays, reference.gradients, state, lr).state
    moment, share = optimizer.moments[0], gradient_share(optimizer)
    actual = {
        name: reference.gradients[name] + (array - base.moments[moment][name]) / share
        for name, array in after.moments[moment].items()
    }
    return reference.settle(actual, {name: STEP.absolute + reference.credit(name) for name in actual})


def _zeros(subject: Subject, optimizer: Optimizer) -> OptimizerState:
    shapes = {parameter.name: parameter.shape for parameter in subject.spec.parameters() if parameter.trainable}
    moments = {
        moment: {name: np.zeros(shape, np.float32) for name, shape in shapes.items()} for moment in optimizer.moments
    }
    return OptimizerState(0, moments)


def _rounded(state: OptimizerState) -> OptimizerState:
    moments = {
        moment: {name: array.astype(np.float32) for name, array in arrays.items()}
        for moment, arrays in state.moments.items()
    }
    return OptimizerState(state.step, moments)


def _statistics(subject: Subject, arrays: Arrays, x: Array) -> Arrays:
    """The running statistics after one pass in training mode."""
    referee = subject.referee(arrays)
    referee(x, training=True)
    return {p.name: referee.arrays[p.name] for p in subject.spec.parameters() if not p.trainable}


def _loss_cotangent(subject: Subject, arrays: Arrays, batch: int) -> Array:
    """The gradient of mean cross entropy with respect to the logits: (softmax - one-hot) / N."""
    x, labels = subject.batch(batch)
    logits = subject.referee(arrays)(x, training=True)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = powers / powers.sum(1, keepdims=True)
    probabilities[np.arange(len(labels)), labels] -= 1
    return np.asarray(probabilities / len(labels))


def _step(
    runner: Runner, trainer: Trainer, arrays: Arrays, state: OptimizerState, x: Array, labels: Array, lr: float
) -> Outcome:
    runner.write_arrays(arrays)
    trainer.write_state(state)
    trainer.step(x, labels, lr)
    return Outcome(runner.read_arrays(), trainer.read_state())


BATCH_SIZE = 32
PAIRS = 3
LOSS_ROUNDING = 2.0**-22
"""Two units in the last place: what summing the same loss in another order costs, however equal the weights."""
OPTIMIZER = Optimizer(lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)


def run_freely(subject: Subject, report: Report) -> Iterator[Row]:
    """Mean absolute difference of the loss to PyTorch's, against the noise floor measured in the same run."""
    stage = f"free run, {subject.steps} steps"
    if subject.double is None:
        for runner in subject.runners:
            yield from not_run([stage], runner.name, "it needs PyTorch; run: pip install 'maam[torch]'")
        return
    if len(subject.spec.output_shape(subject.images.shape[1:])) != 1 or has_dropout(subject.spec):
        for runner in subject.runners:
            yield Row(stage, runner.name, Verdict.NOT_APPLICABLE, note="it needs logits, and no dropout")
        return
    assert subject.single is not None
    lead = subject.single
    losses = _run(subject, lead, subject.fresh)
    if not losses.any():  # of a single class
        for runner in subject.runners:
            yield Row(stage, runner.name, Verdict.NOT_APPLICABLE, note="the loss is 0 from the start")
        return
    pairs = [float(np.abs(_run(subject, lead, _neighbour(subject, pair)) - losses).mean()) for pair in range(PAIRS)]
    floor = max(*pairs, LOSS_ROUNDING * float(np.abs(losses).mean()))
    for runner in subject.runners:
        before = runner.read_arrays()
        apart = float(np.abs(_run(subject, runner, subject.fresh) - losses).mean())
        runner.write_arrays(before)
        found = Difference(apart, apart / float(np.abs(losses).mean()), apart / (FREE_RUN_FACTOR * floor))
        note = f"loss {losses[0]:.2f} to {losses[-1]:.2f}"
        yield row(stage, runner.name, found, f"{FREE_RUN_FACTOR:.0f} x {floor:.1e}", report.first_difference, note)


def _run(subject: Subject, runner: Runner, arrays: Mapping[str, Array]) -> Array:
    runner.write_arrays(arrays)
    trainer = runner.trainer(OPTIMIZER)
    batches = (subject.batch(index, BATCH_SIZE) for index in range(subject.steps))
    return np.array([trainer.step(x, labels, OPTIMIZER.lr) for x, labels in batches])


def _neighbour(subject: Subject, pair: int) -> dict[str, Array]:
    """The fresh weights with each element moved to the next float32 up or down."""
    generator = np.random.default_rng([subject.seed, 23, pair])
    return {
        name: np.nextafter(array, generator.choice([-np.inf, np.inf], array.shape).astype(np.float32))
        for name, array in subject.fresh.items()
    }
