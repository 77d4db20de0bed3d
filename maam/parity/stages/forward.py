"""The whole model's output, in eval and train mode."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from maam.fusion import fuse, is_fusible
from maam.parity.report import Report, Row, Verdict, not_run, row
from maam.parity.subject import RANDOM, Subject, has_dropout
from maam.parity.tolerance import rounding
from maam.reference import ReferenceModel
from maam.spec import Model
from maam.tolerance import (
    EXACT,
    LAYER,
    LOGITS,
    NONE,
    SIGNAL_TO_NOISE,
    STATISTICS,
    Bound,
    Difference,
    difference,
    signal_to_noise,
    worse,
)
from maam.training import Runner
from maam.weights import read_weights, write_weights

EXCHANGE = "weight exchange"


def exchange_weights(subject: Subject, report: Report) -> Iterator[Row]:
    """Write the weights to a file, read them into each runner, read them out, compare bit by bit."""
    for runner in subject.runners:
        before = runner.read_arrays()
        yield row(EXCHANGE, runner.name, *_through_file(subject, runner))
        runner.write_arrays(before)


def _through_file(subject: Subject, runner: Runner) -> tuple[Difference, Any, str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        write_weights(path, subject.spec, subject.arrays)
        runner.write_arrays(read_weights(path)[1])
        write_weights(path, subject.spec, runner.read_arrays())
        returned = read_weights(path)[1]
    for name, array in subject.arrays.items():
        if name not in returned or returned[name].tobytes() != array.tobytes():
            return _gap(returned.get(name), array), EXACT, name
    return NONE, EXACT, ""


def _gap(returned: Any, array: Any) -> Difference:
    if returned is None or returned.shape != array.shape:
        return Difference(np.inf, np.inf, np.inf)
    worst = float(np.abs(returned.astype(np.float64) - array).max())
    return Difference(worst, worst / max(float(np.abs(array).max()), 1e-300), np.inf)


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


FUSED = "fused form"
REFEREE = Bound(1e-12, 0.0, scaled=True)


def compare_fused(subject: Subject, report: Report) -> Iterator[Row]:
    """The fused form in the referee and in each framework, against the referee of the unfused form."""
    if not is_fusible(subject.spec):
        for runner in subject.runners:
            yield Row(FUSED, runner.name, Verdict.NOT_APPLICABLE, note="nothing to fuse")
        return
    x, _ = subject.batch(0)
    expected = subject.referee()(x)
    spec, arrays = fuse(subject.spec, subject.arrays)
    yield row(FUSED, "referee", difference(ReferenceModel(spec, arrays)(x), expected, REFEREE), REFEREE, "the whole")
    bound = LOGITS if isinstance(spec, Model) else LAYER
    for runner in subject.runners:
        actual = runner.clone_with(spec, arrays).forward(x)
        same = f"{int((actual.argmax(1) == expected.argmax(1)).sum())} of {len(x)} largest outputs the same"
        note = same if isinstance(spec, Model) else ""
        yield row(FUSED, runner.name, difference(actual, expected, bound), bound, "the whole", note)


def measure_precision(subject: Subject, report: Report) -> Iterator[Row]:
    """The model with parameters and input in float16 and in bfloat16."""
    x, _ = subject.batch(0)
    expected = subject.referee()(x)
    for dtype, least in SIGNAL_TO_NOISE.items():
        for runner in subject.runners:
            if runner.name != "torch compiled":
                yield _one(subject, runner, dtype, least, x, expected)


def _one(subject: Subject, runner: Runner, dtype: str, least: float, x: Array, expected: Array) -> Row:
    stage, bound = f"{dtype} output", f">= {least:.0f} dB"
    try:
        actual = runner.clone_with(subject.spec, subject.arrays, dtype).forward(x)
    except (TypeError, RuntimeError, NotImplementedError) as error:
        return Row(stage, runner.name, Verdict.NOT_AVAILABLE, bound, note=_operator(error))
    ratio = signal_to_noise(actual, expected)
    verdict = Verdict.PASS if ratio >= least else Verdict.FAIL
    return Row(stage, runner.name, verdict, bound, note=f"{ratio:.0f} dB")


def _operator(error: Exception) -> str:
    """The operator that a framework's message names, or the start of the message."""
    text = " ".join(str(error).split())
    named = re.search(r"(?:primitive|operator) ?\[(\w+)\]", text) or re.search(r"kernel.*?\b([A-Z]\w+[a-z]\w+)", text)
    return f"no kernel for {named.group(1)}" if named else text[:80]
