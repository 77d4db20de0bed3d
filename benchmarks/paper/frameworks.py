"""One run in both frameworks from the same weights and batches: the difference of the losses, and the speed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.paper.experiments import Row
from benchmarks.paper.results import describe_origin, read_log, run_folder
from maam import _io, plots
from maam._system import command_line
from maam.errors import TrainingError
from maam.training.compare import markdown_table

Array = np.ndarray[Any, Any]
FRAMEWORKS = ("torch", "mindspore")
WINDOWS = ((1, 1), (2, 10), (11, 100), (101, 1000), (1001, None))
"""First and last step of the ranges over which the difference of the losses is averaged."""


class Side(NamedTuple):
    """A run in one framework, finished or not.

    Attributes:
        losses: loss of each training step (steps,).
        accuracies: accuracy on the test images after each epoch (epochs,).
        speed: training images per second, median over the log.
        minutes: training time per epoch, median.
        origin: framework, precision, processor and versions.
    """

    losses: Array
    accuracies: Array
    speed: float
    minutes: float
    origin: str


def read_sides(row: Row, runs: Path, seed: int) -> dict[str, Side]:
    """Read the run of a row in each framework, up to its last finished epoch.

    Raises:
        TrainingError: a framework has no finished epoch, or the files of its run are broken.
    """
    return {framework: _read_side(row, runs, seed, framework) for framework in FRAMEWORKS}


def render_frameworks(row: Row, sides: Mapping[str, Side], out: Path) -> str:
    """Write frameworks.md and frameworks.png to the folder `out` and return the Markdown.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    out.mkdir(parents=True, exist_ok=True)
    common = min(len(side.losses) for side in sides.values())
    losses = {name: side.losses[:common] for name, side in sides.items()}
    plots.draw_step_losses(losses, out / "frameworks.png", f"{row.preset}: the same run in both frameworks")
    head = ("framework", "training steps", "minutes per epoch", "images per second", "test accuracy after each epoch")
    lines = ["# The same run in both frameworks", "", *markdown_table(head, map(_cells, sides, sides.values())), ""]
    lines += [_compare_with_paper(sides), "", f"`{row.preset}`: mean absolute difference of the training loss.", ""]
    lines += [*markdown_table(("steps", "difference", "loss"), _differences(*losses.values())), ""]
    lines += ["![losses](frameworks.png)", "", f"Command: `{command_line()}`", ""]
    text = "\n".join([*lines, *(f"Trained with {side.origin}\n" for side in sides.values())])
    _io.write_text(out / "frameworks.md", text)
    return text


def _read_side(row: Row, runs: Path, seed: int, framework: str) -> Side:
    folder = run_folder(runs, row, seed, framework)
    if not any(record["kind"] == "epoch" for record in folder.log.records()):
        raise TrainingError(
            f"{folder.path}: this run has no finished epoch; train it with: "
            "python -m benchmarks paper frameworks --root DIR"
        )
    curves = read_log(folder)
    minutes = float(np.median(curves.minutes))
    return Side(curves.loss, curves.test_accuracy, curves.images_per_second, minutes, describe_origin(folder))


def _cells(name: str, side: Side) -> tuple[str, ...]:
    accuracies = ", ".join(f"{value:.4f}" for value in side.accuracies)
    return name, f"{len(side.losses):,}", f"{side.minutes:.2f}", f"{side.speed:.0f}", accuracies


def _compare_with_paper(sides: Mapping[str, Side]) -> str:
    ratio = sides["mindspore"].minutes / sides["torch"].minutes
    return (
        f"In these runs an epoch of training took {ratio:.2f} times as long in MindSpore as in PyTorch (wall time; the "
        'precisions are given below). The paper reports "improving training efficiency by 30%" (abstract) and "a 30% '
        'faster training speed than traditional frameworks" (section 3.3) for MindSpore; at 30 % higher speed, an '
        "epoch takes 0.77 times as long. The paper names neither the other frameworks nor the hardware."
    )


def _differences(one: Array, other: Array) -> list[tuple[str, str, str]]:
    rows = []
    for first, last in WINDOWS:
        window = slice(first - 1, last)
        if len(one[window]):
            difference, loss = np.abs(one[window] - other[window]).mean(), one[window].mean()
            end = min(last or len(one), len(one))
            rows.append((f"{first:,} to {end:,}", f"{difference:.1e}", f"{loss:.3f}"))
    return rows
