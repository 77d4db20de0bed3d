"""Runs side by side, as a table and a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from benchmarks.paper.pages import markdown_table
from maam import _io, plots
from maam._system import command_line
from maam.training.compare import RunSummary, flat_fields, varying_fields

NOTE = (
    "Accuracy: on the test images after the last epoch that was made, and after the best one, which is chosen on the "
    "same images and so flatters; training, the mean over the steps of the last epoch, on augmented images."
)


def tabulate(runs: Sequence[RunSummary]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table: a run a row, the fields of the recipes that are not the same in all, the figures."""
    fields = varying_fields(runs)
    in_both = len({run.framework for run in runs}) > 1
    named = ["run", *(["framework"] if in_both else []), *fields]
    head = [*named, "epochs made", "test accuracy", "best", "training accuracy", "minutes"]
    rows = []
    for run in runs:
        values = flat_fields(run.recipe)
        own = [run.framework] if in_both else []
        rows.append([run.name, *own, *(_cell(values.get(field)) for field in fields), *_figures(run)])
    return head, rows


def render_runs(runs: Sequence[RunSummary], path: Path) -> str:
    """Write the table to the Markdown file `path`, and the curves to a picture beside it; returns the Markdown.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    picture = path.with_suffix(".png")
    head, rows = tabulate(runs)
    table = markdown_table(head, [[cell.replace("|", r"\|") for cell in row] for row in rows])
    lines = ["# Runs", "", *table, "", NOTE, "", f"![accuracy by epoch]({quote(os.fsencode(picture.name))})", ""]
    text = "\n".join([*lines, f"Command: `{command_line()}`", ""])
    training = {run.name: run.training_accuracy for run in runs}
    plots.draw_runs(training, {run.name: run.test_accuracy for run in runs}, picture, "Runs side by side")
    _io.write_text(path, text)
    return text


def _figures(run: RunSummary) -> list[str]:
    made, accuracy = len(run.test_accuracy), run.test_accuracy
    best = f"{accuracy.max():.2%}, epoch {accuracy.argmax() + 1}"
    epochs = f"{made} of {run.recipe.epochs}"
    return [epochs, f"{accuracy[-1]:.2%}", best, f"{run.training_accuracy[-1]:.2%}", f"{run.minutes:.0f}"]


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
