"""Layers: each alone on the same input, and each where it stands in the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from maam.parity.bounds import LAYER, LOGITS, NONE, Difference, worse
from maam.parity.report import Report, Row, not_run, row
from maam.porting.alignment import Run
from maam.porting.half import Call
from maam.porting.judging import held
from maam.porting.subject import Subject

Array = np.ndarray[Any, Any]
RUNNER = "mindspore pynative"
_BROKEN = Difference(np.inf, np.inf, np.inf)


def compare_layers(subject: Subject, report: Report) -> Iterator[Row]:
    """Each layer alone, in eval and in train mode, on what PyTorch's layer was given."""
    for training in (False, True):
        single, double = subject.record(training)
        halves = (subject.mindspore, subject.double)
        before = [half.read() for half in halves]
        worst, first, said = NONE, "", ""
        for run in subject.runs:
            found, reason = _alone(subject, run, single[run.torch], double[run.torch], training)
            if found.used > 1 and not first:
                first, said = run.pair.name, reason
            worst = worse(worst, found)
        for half, arrays in zip(halves, before, strict=True):
            half.write(arrays)
        stage = f"layers alone, {'train' if training else 'eval'}"
        yield row(stage, RUNNER, worst, LAYER, first, said or f"{len(subject.runs)} runs of layers")


def _alone(subject: Subject, run: Run, single: Call, double: Call, training: bool) -> tuple[Difference, str]:
    if single.inputs is None or single.output is None:
        return NONE, ""
    try:
        actual = subject.mindspore.run_layer(run.pair.mindspore.name, single.inputs, training)
        expected = subject.double.run_layer(run.pair.torch.name, single.inputs, training)
    except Exception as error:  # whatever a framework raises
        return _BROKEN, f"refused its input: {first_line(error)}"
    if actual.shape != expected.shape:
        return _BROKEN, f"gives {actual.shape} instead of {expected.shape}"
    return held(actual, expected, single.output, LAYER), ""


def compare_layers_inside(subject: Subject, report: Report) -> Iterator[Row]:
    """Each layer's output in the running model, in eval mode."""
    stage = "layers in the model, eval"
    if subject.refusal:
        yield from not_run([stage], RUNNER, "MindSpore's model did not run")
        return
    single, double = subject.record(False)
    calls = subject.mindspore.record(subject.x)[1]
    worst, first, note, last = NONE, "", "", "the input"
    for run in subject.runs:
        assert run.mindspore is not None
        found = _inside(single[run.torch], double[run.torch], calls[run.mindspore])
        if found.used > 1 and not first:
            first = run.pair.name
            note = _cause(report, single[run.torch], double[run.torch], calls[run.mindspore], last, first)
        worst, last = worse(worst, found), run.pair.name
    yield row(stage, RUNNER, worst, LOGITS, first, note)


def _inside(single: Call, double: Call, actual: Call) -> Difference:
    if single.output is None or double.output is None or actual.output is None:
        return NONE
    return held(actual.output, double.output, single.output, LOGITS)


def _cause(report: Report, single: Call, double: Call, actual: Call, last: str, first: str) -> str:
    """What the layer is given tells whether the fault is in it or before it."""
    triples = zip(single.inputs or (), double.inputs or (), actual.inputs or (), strict=False)
    if any(held(c, b, a, LOGITS).used > 1 for a, b, c in triples):
        return f"what it is given differs: look at the code between {last} and it (functions, sums, order)"
    return "" if report.first_difference else "what it is given agrees"


def first_line(error: Exception) -> str:
    """The first line of what a framework says, not too long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
