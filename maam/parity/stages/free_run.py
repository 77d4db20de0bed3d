"""A free run: no further apart than PyTorch is from itself with initial weights one unit in the last place away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from maam.parity.bounds import FREE_RUN_FACTOR, Difference
from maam.parity.report import Report, Row, Verdict, not_run, row
from maam.parity.subject import Subject, has_dropout
from maam.training import Optimizer, Runner

Array = np.ndarray[Any, Any]
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
