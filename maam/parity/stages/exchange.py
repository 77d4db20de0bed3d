"""Weight exchange: bit-exact through a file, into every runner and out again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from maam.parity.bounds import EXACT, NONE, Difference
from maam.parity.report import Report, Row, row
from maam.parity.subject import Subject
from maam.training import Runner
from maam.weights import read_weights, write_weights

STAGE = "weight exchange"


def exchange_weights(subject: Subject, report: Report) -> Iterator[Row]:
    """Write the weights to a file, read them into each runner, read them out, compare bit by bit."""
    for runner in subject.runners:
        before = runner.read_arrays()
        yield row(STAGE, runner.name, *_through_file(subject, runner))
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
