"""The models as a whole: weights, outputs, running statistics, gradients, training steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from maam.parity.bounds import EXACT, LOGITS, NONE, STATISTICS, Difference, difference, worse
from maam.parity.report import Report, Row, Verdict, not_run, row
from maam.porting.half import Half
from maam.porting.judging import LEAST, VAIN, allowances, errors, held, moved_runs
from maam.porting.layer_stages import RUNNER
from maam.porting.subject import Subject

Array = np.ndarray[Any, Any]
RATE, MOMENTUM, DECAY = 1e-3, 0.9, 5e-4


def compare_weights(subject: Subject, report: Report) -> Iterator[Row]:
    """All weights, bit for bit."""
    own, other = subject.torch.read(), subject.torch_names(subject.mindspore.read())
    worst, first = NONE, ""
    for name, array in other.items():
        found = difference(array, own[name].astype(np.float64), EXACT)
        first = first or subject.layer(name) if found.used > 1 else first
        worst = worse(worst, found)
    yield row("weights", RUNNER, worst, EXACT, first, f"{len(other)} arrays of {len(subject.pairs)} layers")


def compare_outputs(subject: Subject, report: Report) -> Iterator[Row]:
    """The output in eval and train mode, and the running statistics that a pass in train mode leaves."""
    stages = ["output, eval", "output, train", "running statistics"]
    if subject.refusal:
        yield Row(stages[0], RUNNER, Verdict.FAIL, str(LOGITS), layer=report.first_difference, note=subject.refusal)
        yield from not_run(stages[1:], RUNNER, "MindSpore's model did not run")
        return
    halves = (subject.mindspore, subject.double, subject.torch)
    last = f"after {subject.runs[-1].pair.name}" if subject.runs else "the whole"
    for training, stage in enumerate(stages[:2]):
        before = [half.read() for half in halves]
        actual, expected, single = (half.forward(subject.x, bool(training)) for half in halves)
        found = held(actual, expected, single, LOGITS)
        yield row(stage, RUNNER, found, LOGITS, report.first_difference or last)
        if training:
            yield _statistics(subject, *(half.read() for half in halves))
        for half, arrays in zip(halves, before, strict=True):
            half.write(arrays)


def _statistics(
    subject: Subject, actual: dict[str, Array], expected: dict[str, Array], single: dict[str, Array]
) -> Row:
    worst, first = NONE, ""
    moved = [slot.name for pair in subject.pairs for slot, _ in pair.slots if not slot.trainable]
    own = subject.torch_names(actual)
    for name in moved:
        found = held(own[name], expected[name], single[name], STATISTICS)
        first = first or subject.layer(name) if found.used > 1 else first
        worst = worse(worst, found)
    return row("running statistics", RUNNER, worst, STATISTICS, first, "" if moved else "there are none")


def compare_gradients(subject: Subject, report: Report) -> Iterator[Row]:
    """Gradients of every parameter, by name, in train mode."""
    if reason := _obstacle(subject):
        yield from not_run(["gradients"], RUNNER, reason)
        return
    generator = np.random.default_rng([subject.seed, 11])
    cotangent = generator.standard_normal(_output_shape(subject)).astype(np.float32)

    def run(half: Half, x: Array) -> dict[str, Array]:
        return half.gradients(x, cotangent)

    yield _judge(subject, report, "gradients", run)


def compare_steps(subject: Subject, report: Report) -> Iterator[Row]:
    """What a few steps of SGD with momentum and weight decay do to every parameter."""
    stage = f"sgd, steps: {subject.steps}"
    if reason := _obstacle(subject):
        yield from not_run([stage], RUNNER, reason)
        return
    generator = np.random.default_rng([subject.seed, 13])
    shape = _output_shape(subject)
    target = generator.standard_normal(shape).astype(np.float32)
    if len(shape) == 2:
        target = generator.integers(0, shape[1], shape[0]).astype(np.int32)

    def run(half: Half, x: Array) -> dict[str, Array]:
        start = half.read()
        half.train([(x, target)] * subject.steps, RATE, MOMENTUM, DECAY)
        after = half.read()
        return {name: after[name].astype(np.float64) - start[name] for name in start}

    yield _judge(subject, report, stage, run)


def _judge(subject: Subject, report: Report, stage: str, run: Any) -> Row:
    """Hold what `run` gives for each trained array to the referee's.

    A fault spreads backwards, so the last one that differs is named.
    """
    trained = [slot.name for pair in subject.pairs for slot, _ in pair.slots if slot.trainable]
    expected = _of(_run(subject.double, run, subject.x), trained)
    if bad := [name for name in trained if not np.isfinite(expected[name]).all()]:
        note = f"not finite in PyTorch itself: {len(bad)} arrays"
        return Row(stage, RUNNER, Verdict.FAIL, layer=report.first_difference or subject.layer(bad[-1]), note=note)
    moved = moved_runs(subject.double, subject.torch.read(), subject.x, run, subject.seed)
    others = [_of(found, trained) for found in (_run(subject.torch, run, subject.x), *moved)]
    allowed = allowances(expected, others)
    actual = subject.torch_names(_run(subject.mindspore, run, subject.x))
    if fixed := [name for name in trained if name not in actual]:
        note = f"not trained in MindSpore (requires_grad): {len(fixed)} arrays"
        return Row(stage, RUNNER, Verdict.FAIL, layer=report.first_difference or subject.layer(fixed[0]), note=note)
    clear = [name for name in trained if allowed[name] <= VAIN]
    if not clear:
        return Row(stage, RUNNER, Verdict.NOT_APPLICABLE, note=_vain(trained))
    found = errors(actual, expected)
    bad = [name for name in clear if found[name] > allowed[name]]
    worst = Difference(np.nan, max(found[n] for n in clear), max(found[n] / allowed[n] for n in clear))
    note = f"rounding: {max(allowed[n] for n in clear):.1e} allowed at most"
    note += f"; {len(trained) - len(clear)} arrays all rounding, left out" if len(clear) < len(trained) else ""
    return row(stage, RUNNER, worst, LEAST, report.first_difference or subject.layer(bad[-1] if bad else ""), note)


def _vain(trained: list[str]) -> str:
    return (
        "rounding alone moves every gradient by a tenth or more; give more, or larger, inputs"
        if trained
        else "none trained"
    )


def _run(half: Half, run: Any, x: Array) -> dict[str, Array]:
    before = half.read()
    found = run(half, x)
    half.write(before)
    return found


def _of(arrays: Mapping[str, Array], names: list[str]) -> dict[str, Array]:
    return {name: arrays[name] for name in names}


def _obstacle(subject: Subject) -> str:
    if subject.refusal:
        return "MindSpore's model did not run"
    shapes = _output_shape(subject), subject.mindspore.forward(subject.x).shape
    return "" if shapes[0] == shapes[1] else f"MindSpore's output is of shape {shapes[1]} instead of {shapes[0]}"


def _output_shape(subject: Subject) -> tuple[int, ...]:
    return subject.torch.forward(subject.x).shape
