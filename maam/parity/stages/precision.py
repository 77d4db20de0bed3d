"""Half precision: the signal-to-noise ratio of the output against the float64 referee."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from maam.parity.bounds import SIGNAL_TO_NOISE, signal_to_noise
from maam.parity.report import Report, Row, Verdict
from maam.parity.subject import Subject
from maam.training import Runner

Array = np.ndarray[Any, Any]


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
        actual = runner.sibling(subject.spec, subject.arrays, dtype).forward(x)
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
