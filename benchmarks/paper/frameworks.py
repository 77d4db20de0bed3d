"""One run in both frameworks, from the same initial weights and batches: how far the losses part, and the speed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.paper.experiments import Row
from benchmarks.paper.results import folder_of, origin_of
from maam import _io, plots
from maam._system import command_line
from maam.backend.registry import FRAMEWORKS
from maam.errors import MaamError, TrainingError
from maam.training.report import read_curves

Array = np.ndarray[Any, Any]
WINDOWS = ((1, 1), (2, 10), (11, 100), (101, 1000), (1001, None))
"""Ranges of steps, first and last, over which the difference of the losses is averaged."""


class Side(NamedTuple):
    """A run in one framework, finished or not.

    Attributes:
        losses: of each training step (steps,).
        accuracies: on the test images after each epoch (epochs,).
        speed: images a second in training, the median over the log.
        minutes: of training an epoch, the median.
        origin: on what it was made.
    """

    losses: Array
    accuracies: Array
    speed: float
    minutes: float
    origin: str


def read_sides(row: Row, runs: Path, seed: int) -> dict[str, Side]:
    """The run of a row with a seed in each framework, as far as it was made.

    Raises:
        TrainingError: a framework has made no epoch of it, or its files are broken.
    """
    return {framework: _read(row, runs, seed, framework) for framework in FRAMEWORKS}


def render_frameworks(row: Row, sides: Mapping[str, Side], out: Path) -> str:
    """Write frameworks.md and frameworks.png to the folder `out`; returns the Markdown.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    out.mkdir(parents=True, exist_ok=True)
    common = min(len(side.losses) for side in sides.values())
    shared = {name: side.losses[:common] for name, side in sides.items()}
    plots.draw_step_losses(shared, out / "frameworks.png", f"{row.preset}: the same run in both frameworks")
    text = _markdown(row, sides, shared)
    _io.write_text(out / "frameworks.md", text)
    return text


def _read(row: Row, runs: Path, seed: int, framework: str) -> Side:
    folder = folder_of(runs, row, seed, framework)
    records = folder.log.records()
    if not any(record["kind"] == "epoch" for record in records):
        raise TrainingError(f"{folder.path}: no epoch of this run was made; run: maam reproduce frameworks --root DIR")
    try:
        curves = read_curves(records, folder.recipe().batch_size)
        curves.check_whole()
        minutes = float(np.median(curves.minutes))
        return Side(curves.loss, curves.test_accuracy, curves.images_per_second, minutes, origin_of(folder))
    except (MaamError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise TrainingError(f"{folder.path}: the run's files are broken: {error}") from None


def _markdown(row: Row, sides: Mapping[str, Side], shared: Mapping[str, Array]) -> str:
    head = ("framework", "steps made", "minutes an epoch", "images a second", "test accuracy after each epoch")
    lines = ["# The same run in both frameworks", "", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for name, side in sides.items():
        accuracies = ", ".join(f"{value:.4f}" for value in side.accuracies)
        cells = (name, f"{len(side.losses):,}", f"{side.minutes:.2f}", f"{side.speed:.0f}", accuracies)
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", _beside_the_paper(sides)]
    lines += [
        "",
        f"`{row.preset}`: mean absolute difference of the training loss.",
        "",
        "| steps | difference | loss |",
    ]
    lines += ["| --- | --- | --- |", *_differences(*shared.values())]
    lines += ["", "![losses](frameworks.png)", "", f"Command: `{command_line()}`", ""]
    return "\n".join([*lines, *(f"Run by {side.origin}\n" for side in sides.values())])


def _beside_the_paper(sides: Mapping[str, Side]) -> str:
    """How long MindSpore trains here in units of PyTorch's time, and what the paper's abstract claims."""
    share = sides["mindspore"].minutes / sides["torch"].minutes
    return (
        f"By wall time an epoch of training takes {share:.2f} times as long in MindSpore as in PyTorch here, each in "
        'its precision below. The paper has MindSpore "improving training efficiency by 30%" (abstract), "a 30% faster '
        'training speed than traditional frameworks" (section 3.3; 30 % faster is 0.77 times as long). Which '
        "frameworks, and on what hardware, it does not say."
    )


def _differences(one: Array, other: Array) -> list[str]:
    rows = []
    for first, last in WINDOWS:
        window = slice(first - 1, last)
        if len(one[window]):
            gap, loss = np.abs(one[window] - other[window]).mean(), one[window].mean()
            end = min(last or len(one), len(one))
            rows.append(f"| {first:,} to {end:,} | {gap:.1e} | {loss:.3f} |")
    return rows
