"""The stages "steps" and "free run": training steps from the same state in all runners, and a run on real images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from maam.backend.optimizer import Optimizer
from maam.backend.protocol import OptimizerState, Runner, Trainer
from maam.errors import install_command
from maam.parity.kinks import GradientReference, Settled, calm_batch, crossings
from maam.parity.optimizers import Outcome, StepDifferences, compare_step, gradient_share, take_step
from maam.parity.report import Findings, Row, Verdict, row, skip
from maam.parity.stages.gradients import smooth_subject
from maam.parity.subject import RANDOM, Subject, allowance, has_dropout
from maam.reference.functions import softmax
from maam.spec import Node
from maam.tolerance import FREE_RUN_FACTOR, LOSS_ROUNDING, STATISTICS, STEP, Difference
from maam.training import one_cycle

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
STEPS = 10
OPTIMIZERS = {
    "sgd": Optimizer(lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-3),
    "adam": Optimizer(name="adam", lr=1e-3, weight_decay=5e-3),
    "adamw": Optimizer(name="adamw", lr=1e-3, weight_decay=5e-2),
}
FREE_RUN_OPTIMIZER = Optimizer(lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
FREE_RUN_BATCH = 32
PAIRS = 3
"""The number of pairs of PyTorch runs that measure the noise floor of the free run."""


def compare_steps(subject: Subject, suspect: str = "") -> Findings:
    """Compare moments, updates and running statistics after each of ten steps of each optimizer.

    A network with a crowd of kinks takes the steps with smooth activations.
    """
    stages = {name: f"ten steps, {name}" for name in OPTIMIZERS}
    if subject.double is None:
        reason = f"steps are compared with PyTorch in float64; run: {install_command('torch')}"
        return Findings(_skip_each(subject, stages.values(), reason))
    if not subject.has_logits:
        reason = "a layer has no logits to train on"
        return Findings(_skip_each(subject, stages.values(), reason, Verdict.NOT_APPLICABLE))
    if has_dropout(subject.spec):
        return Findings(_skip_each(subject, stages.values(), RANDOM))
    subject, remark = _without_crowds(subject)
    rows = []
    for name, stage in stages.items():
        for runner, worst in zip(subject.runners, take_steps(subject, OPTIMIZERS[name]), strict=True):
            note = "; ".join(filter(None, (remark, crossings(worst.crossed))))
            rows.append(row(stage, runner.name, worst.step, STEP, suspect or worst.layer, note))
            if worst.statistics.used > 1:
                allowed = STATISTICS.times(allowance(runner, subject.spec).statistics)
                rows.append(row(f"{stage}, statistics", runner.name, worst.statistics, allowed, worst.statistics_layer))
    return Findings(rows)


def _skip_each(subject: Subject, stages: Any, note: str, verdict: Verdict = Verdict.NOT_RUN) -> list[Row]:
    return [one for stage in stages for one in skip([stage], subject.runner_names, note, verdict)]


def _without_crowds(subject: Subject) -> tuple[Subject, str]:
    x, cotangent = subject.batch(0)[0], loss_cotangent(subject, subject.fresh, 0)
    if not GradientReference(subject, subject.fresh, x, cotangent).crowded:
        return subject, ""
    return smooth_subject(subject), "with smooth activations"


def take_steps(subject: Subject, optimizer: Optimizer, start: Outcome | None = None) -> list[StepDifferences]:
    """Return the largest differences of each runner from the reference over ten steps.

    Each step starts from the same weights and optimizer state in all runners.

    Args:
        subject: the model, its images and its runners.
        optimizer: the rule and its settings.
        start: the state of a run to continue from; fresh weights and zero moments if None.
    """
    trainers = [runner.trainer(optimizer) for runner in subject.runners]
    before = [runner.read_arrays() for runner in subject.runners]
    found = [StepDifferences() for _ in subject.runners]
    state = start or Outcome(dict(subject.fresh), zero_state(subject.spec, optimizer))
    batch = 0
    for index in range(STEPS):
        lr = one_cycle(index + 1, STEPS + 1, optimizer.lr)
        batch, reference = calm_batch(subject, state.arrays, partial(loss_cotangent, subject, state.arrays), batch)
        x, labels = subject.batch(batch)
        batch += 1
        statistics = running_statistics(subject, state.arrays, x)
        for runner, trainer, worst in zip(subject.runners, trainers, found, strict=True):
            actual = _step(runner, trainer, state, x, labels, lr)
            settled = Settled(reference.gradients, 0)
            if not worst.layer:  # skip the slow search once a runner has failed
                settled = _settle(optimizer, subject.spec, reference, state, actual.state, lr)
            expected = take_step(optimizer, subject.spec, state.arrays, settled.gradients, state.state, lr)
            expected.arrays.update(statistics)
            worst.crossed += settled.crossed
            allowed = allowance(runner, subject.spec)
            compare_step(worst, optimizer, reference, state.arrays, actual, expected, lr, allowed)
        after = take_step(optimizer, subject.spec, state.arrays, reference.gradients, state.state, lr)
        state = to_float32(Outcome(after.arrays | statistics, after.state))
    for runner, arrays in zip(subject.runners, before, strict=True):
        runner.write_arrays(arrays)
    return found


def zero_state(spec: Node, optimizer: Optimizer) -> OptimizerState:
    """Return the optimizer's state before the first step."""
    shapes = {parameter.name: parameter.shape for parameter in spec.parameters() if parameter.trainable}
    moments = {
        moment: {name: np.zeros(shape, np.float32) for name, shape in shapes.items()} for moment in optimizer.moments
    }
    return OptimizerState(0, moments)


def to_float32(state: Outcome) -> Outcome:
    """Return a state with all arrays rounded to float32."""
    moments = {
        moment: {name: array.astype(np.float32) for name, array in arrays.items()}
        for moment, arrays in state.state.moments.items()
    }
    arrays = {name: array.astype(np.float32) for name, array in state.arrays.items()}
    return Outcome(arrays, OptimizerState(state.state.step, moments))


def running_statistics(subject: Subject, arrays: Mapping[str, Array], x: Array) -> Arrays:
    """Return the reference's running statistics after one pass in train mode, float64."""
    reference = subject.reference(arrays)
    reference(x, training=True)
    return {p.name: reference.arrays[p.name] for p in subject.spec.parameters() if not p.trainable}


def loss_cotangent(subject: Subject, arrays: Mapping[str, Array], batch: int) -> Array:
    """Return the gradient of the mean cross entropy with respect to the logits: (softmax - one-hot) / N."""
    x, labels = subject.batch(batch)
    logits = subject.reference(arrays)(x, training=True)
    probabilities = softmax(logits)
    probabilities[np.arange(len(labels)), labels] -= 1
    return np.asarray(probabilities / len(labels))


def _settle(
    optimizer: Optimizer, spec: Node, reference: GradientReference, state: Outcome, after: OptimizerState, lr: float
) -> Settled:
    """Return the gradients on the runner's side of the kinks, inferred from its first moment."""
    base = take_step(optimizer, spec, state.arrays, reference.gradients, state.state, lr).state
    moment, share = optimizer.moments[0], gradient_share(optimizer)
    actual = {
        name: reference.gradients[name] + (array - base.moments[moment][name]) / share
        for name, array in after.moments[moment].items()
    }
    return reference.settle(actual, {name: STEP.absolute + reference.credit(name) for name in actual})


def _step(runner: Runner, trainer: Trainer, state: Outcome, x: Array, labels: Array, lr: float) -> Outcome:
    runner.write_arrays(state.arrays)
    trainer.write_state(state.state)
    trainer.step(x, labels, lr)
    return Outcome(runner.read_arrays(), trainer.read_state())


def run_freely(subject: Subject, suspect: str = "") -> Findings:
    """Compare the losses of a run with PyTorch's, by the mean absolute difference.

    The bound is a multiple of the noise floor: the largest distance between PyTorch's run and runs whose initial
    weights differ by one unit in the last place. Training amplifies rounding, so a fixed bound would prove nothing.
    """
    stage = f"free run, {subject.steps} steps"
    if subject.double is None:
        reason = f"losses are compared with PyTorch's; run: {install_command('torch')}"
        return Findings(skip([stage], subject.runner_names, reason))
    if not subject.has_logits or has_dropout(subject.spec):
        reason = "only models with logits and without dropout are compared"
        return Findings(skip([stage], subject.runner_names, reason, Verdict.NOT_APPLICABLE))
    assert subject.single is not None
    losses = _losses(subject, subject.single, subject.fresh)
    if not losses.any():  # a model of one class
        reason = "the loss is 0 from the start"
        return Findings(skip([stage], subject.runner_names, reason, Verdict.NOT_APPLICABLE))
    size = float(np.abs(losses).mean())
    neighbors = (_losses(subject, subject.single, _neighbor(subject, pair)) for pair in range(PAIRS))
    floor = max(*(float(np.abs(other - losses).mean()) for other in neighbors), LOSS_ROUNDING * size)
    rows = []
    for runner in subject.runners:
        before = runner.read_arrays()
        apart = float(np.abs(_losses(subject, runner, subject.fresh) - losses).mean())
        runner.write_arrays(before)
        found = Difference(apart, apart / size, apart / (FREE_RUN_FACTOR * floor))
        note = f"loss {losses[0]:.2f} to {losses[-1]:.2f}"
        rows.append(row(stage, runner.name, found, f"{FREE_RUN_FACTOR:.0f} x {floor:.1e}", suspect, note))
    return Findings(rows)


def _losses(subject: Subject, runner: Runner, arrays: Mapping[str, Array]) -> Array:
    """Return the loss at each step of a run."""
    runner.write_arrays(arrays)
    trainer = runner.trainer(FREE_RUN_OPTIMIZER)
    batches = (subject.batch(index, FREE_RUN_BATCH) for index in range(subject.steps))
    return np.array([trainer.step(x, labels, FREE_RUN_OPTIMIZER.lr) for x, labels in batches])


def _neighbor(subject: Subject, pair: int) -> Arrays:
    """Return the fresh weights with each element moved to the next float32 up or down."""
    generator = np.random.default_rng([subject.seed, 23, pair])
    return {
        name: np.nextafter(array, generator.choice([-np.inf, np.inf], array.shape).astype(np.float32))
        for name, array in subject.fresh.items()
    }
