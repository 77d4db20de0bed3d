"""Stages on the weights and outputs of the whole model: exchange, forward, fused and precision."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from maam._messages import one_line
from maam.backend.protocol import Runner
from maam.fusion import fuse, is_fusible
from maam.parity.report import Findings, Row, Verdict, row, skip
from maam.parity.subject import RANDOM, WHOLE, Subject, allowance, compiles_only_whole, has_dropout
from maam.reference import ReferenceModel
from maam.spec import Model
from maam.tolerance import (
    BROKEN,
    EXACT,
    FUSED_REFERENCE,
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
from maam.weights import read_weights, write_weights

Array = np.ndarray[Any, Any]
EXCHANGE = "weight exchange"
FUSED = "fused form"
UNSUPPORTED = (TypeError, RuntimeError, NotImplementedError)
"""What frameworks raise for a dtype without a kernel."""


def exchange_weights(subject: Subject, suspect: str = "") -> Findings:
    """Write the weights to a file, read them into each runner, write them out again, and compare bit by bit."""
    rows = []
    for runner in subject.runners:
        before = runner.read_arrays()
        rows.append(_exchange(subject, runner))
        runner.write_arrays(before)
    return Findings(rows)


def _exchange(subject: Subject, runner: Runner) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        write_weights(path, subject.spec, subject.arrays)
        runner.write_arrays(read_weights(path)[1])
        write_weights(path, subject.spec, runner.read_arrays())
        returned = read_weights(path)[1]
    for name, array in subject.arrays.items():
        if name not in returned or returned[name].tobytes() != array.tobytes():
            return row(EXCHANGE, runner.name, _difference_in_bits(returned.get(name), array), EXACT, name)
    return row(EXCHANGE, runner.name, NONE, EXACT)


def _difference_in_bits(returned: Array | None, array: Array) -> Difference:
    if returned is None or returned.shape != array.shape:
        return BROKEN
    worst = float(np.abs(returned.astype(np.float64) - array).max())
    return Difference(worst, worst / max(float(np.abs(array).max()), 1e-300), np.inf)


def compare_outputs(subject: Subject, suspect: str = "") -> Findings:
    """Compare the output in eval and train mode, and the running statistics after a pass in train mode."""
    bound, what = (LOGITS, "logits") if isinstance(subject.spec, Model) else (LAYER, "output")
    statistics = "running statistics, whole model"
    x, _ = subject.batch(0)
    rows: list[Row] = []
    for training, stage in ((False, f"{what}, eval"), (True, f"{what}, train")):
        if training and has_dropout(subject.spec):
            rows += skip([stage, statistics], subject.runner_names, RANDOM)
            continue
        reference = subject.reference()
        expected = reference(x, training=training)
        for runner in subject.runners:
            runner.write_arrays(subject.arrays)
            found = difference(runner.forward(x, training), expected, bound)
            rows.append(row(stage, runner.name, found, bound, suspect or WHOLE))
            if training:
                allowed = STATISTICS.times(allowance(runner, subject.spec).statistics)
                found, name = _compare_statistics(subject, runner, reference.arrays, allowed)
                rows.append(row(statistics, runner.name, found, allowed, name))
            runner.write_arrays(subject.arrays)
    return Findings(rows)


def _compare_statistics(
    subject: Subject, runner: Runner, expected: dict[str, Array], bound: Bound
) -> tuple[Difference, str]:
    """Return the largest difference of a running statistic, and the first one outside the bound."""
    arrays = runner.read_arrays()
    worst, first = NONE, ""
    for parameter in subject.spec.parameters():
        if not parameter.trainable:
            found = difference(arrays[parameter.name], expected[parameter.name], bound)
            first = first or parameter.name if found.used > 1 else first
            worst = worse(worst, found)
    return worst, first


def compare_fused(subject: Subject, suspect: str = "") -> Findings:
    """Compare the fused form, in the reference and in each framework, with the unfused reference."""
    if not is_fusible(subject.spec):
        return Findings(skip([FUSED], subject.runner_names, "nothing to fuse", Verdict.NOT_APPLICABLE))
    x, _ = subject.batch(0)
    expected = subject.reference()(x)
    spec, arrays = fuse(subject.spec, subject.arrays)
    found = difference(ReferenceModel(spec, arrays)(x), expected, FUSED_REFERENCE)
    rows = [row(FUSED, "reference", found, FUSED_REFERENCE, WHOLE)]
    bound = LOGITS if isinstance(spec, Model) else LAYER
    for runner in subject.runners:
        actual = runner.clone_with(spec, arrays).forward(x)
        same = f"the same class for {int((actual.argmax(1) == expected.argmax(1)).sum())} of {len(x)} images"
        note = same if isinstance(spec, Model) else ""
        rows.append(row(FUSED, runner.name, difference(actual, expected, bound), bound, WHOLE, note))
    return Findings(rows)


def measure_precision(subject: Subject, suspect: str = "") -> Findings:
    """Run the model with parameters and input in float16 and bfloat16; torch.compile is left out."""
    x, _ = subject.batch(0)
    expected = subject.reference()(x)
    return Findings(
        [
            _measure(subject, runner, dtype, least, x, expected)
            for dtype, least in SIGNAL_TO_NOISE.items()
            for runner in subject.runners
            if not compiles_only_whole(runner)
        ]
    )


def _measure(subject: Subject, runner: Runner, dtype: str, least: float, x: Array, expected: Array) -> Row:
    stage, bound = f"{dtype} output", f">= {least:.0f} dB"
    try:
        actual = runner.clone_with(subject.spec, subject.arrays, dtype).forward(x)
    except UNSUPPORTED as error:
        note = _operator(error) or _first_unsupported(subject, runner, dtype, x.shape)
        return Row(stage, runner.name, Verdict.NOT_AVAILABLE, bound, note=f"no kernel for {note}")
    ratio = signal_to_noise(actual, expected)
    verdict = Verdict.PASS if ratio >= least else Verdict.FAIL
    return Row(stage, runner.name, verdict, bound, note=f"{ratio:.0f} dB")


def _operator(error: Exception) -> str:
    """Return the operator that a framework's message names, or ""."""
    text = one_line(error)
    named = re.search(r"(?:primitive|operator) ?\[(\w+)\]", text) or re.search(r"kernel.*?\b([A-Z]\w+[a-z]\w+)", text)
    return named.group(1) if named else ""


def _first_unsupported(subject: Subject, runner: Runner, dtype: str, shape: tuple[int, ...]) -> str:
    """Return the kind and the name of the first layer that does not run in `dtype`, or its operator if a message says.

    It is for frameworks whose message for the whole model names no operator.
    """
    for path, taken, _, _ in subject.spec.summary(shape[1:]):
        layer = subject.spec.at(path)
        if layer.nodes:
            continue
        arrays = {p.name: subject.arrays[f"{path}.{p.name}"] for p in layer.parameters()}
        try:
            runner.clone_with(layer, arrays, dtype).forward(np.zeros((shape[0], *taken), np.float32))
        except UNSUPPORTED as error:
            return _operator(error) or f"{layer.kind} (layer {path})"
    return "the layers together"
