"""The whole model's output, in eval and train mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from maam.parity.bounds import LAYER, LOGITS, STATISTICS, Bound, Difference, difference, worse
from maam.parity.overrides import rounding
from maam.parity.report import Report, Row, not_run, row
from maam.parity.subject import RANDOM, Subject, has_dropout
from maam.spec import Model
from maam.training import Runner

Array = np.ndarray[Any, Any]


def compare_outputs(subject: Subject, report: Report) -> Iterator[Row]:
    """Logits of a model (or the output of a layer), and all running statistics after one pass in train mode."""
    bound, what = (LOGITS, "logits") if isinstance(subject.spec, Model) else (LAYER, "output")
    x, _ = subject.batch(0)
    for training in (False, True):
        if training and has_dropout(subject.spec):
            for runner in subject.runners:
                yield from not_run([f"{what}, train", "running statistics, whole model"], runner.name, RANDOM)
            continue
        referee = subject.referee()
        expected = referee(x, training=training)
        for runner in subject.runners:
            runner.write_arrays(subject.arrays)
            found = difference(runner.forward(x, training), expected, bound)
            layer = report.first_difference or "the whole"
            yield row(f"{what}, {'train' if training else 'eval'}", runner.name, found, bound, layer)
            if training:
                allowed = STATISTICS.times(rounding(runner.name, subject.spec).statistics)
                gap, name = _statistics(subject, runner, referee.arrays, allowed)
                yield row("running statistics, whole model", runner.name, gap, allowed, name)
            runner.write_arrays(subject.arrays)


def _statistics(subject: Subject, runner: Runner, expected: dict[str, Array], bound: Bound) -> tuple[Difference, str]:
    arrays = runner.read_arrays()
    worst, first = Difference(0.0, 0.0, 0.0), ""
    for parameter in subject.spec.parameters():
        if not parameter.trainable:
            gap = difference(arrays[parameter.name], expected[parameter.name], bound)
            first = first or parameter.name if gap.used > 1 else first
            worst = worse(worst, gap)
    return worst, first
