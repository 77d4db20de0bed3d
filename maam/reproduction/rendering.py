"""A reproduced table as Markdown, CSV and picture."""

from __future__ import annotations

import csv
import io
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maam import files, plots
from maam.reproduction.experiments import Experiment
from maam.reproduction.results import Result
from maam.spec import preset

COLUMNS = ("accuracy", "f1", "precision", "recall")
NOT_RUN = "not run"


def render(name: str, experiment: Experiment, results: Sequence[Result], out: Path) -> str:
    """Write NAME.md, NAME.csv and NAME.png to the folder `out`; returns the Markdown.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    out.mkdir(parents=True, exist_ok=True)
    text = _markdown(name, experiment, results)
    files.write_text(out / f"{name}.md", text)
    files.write_text(out / f"{name}.csv", _csv(results))
    if name.startswith("figure"):
        losses = {result.row.label: np.array(list(result.losses.values())) for result in results if result.losses}
        plots.draw_losses(losses, out / f"{name}.png", experiment.title)
    else:
        found = {r.row.label: [f["accuracy"] for f in r.figures.values()] for r in results}
        paper = {r.row.label: r.row.paper.accuracy for r in results if r.row.paper}
        plots.draw_accuracies(found, paper, out / f"{name}.png", experiment.title)
    return text


def _markdown(name: str, experiment: Experiment, results: Sequence[Result]) -> str:
    header = ["model", "preset", "parameters", "seeds"]
    for column in COLUMNS:
        header += [column, "the paper's"]
    header.append("training, min")
    lines = [f"# {experiment.title}", "", f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    lines += [f"| {' | '.join(_cells(result))} |" for result in results]
    note = "Mean ± standard deviation over the seeds, of the last epoch, on all test images."
    picture = f"![{experiment.title}]({name}.png)"
    return "\n".join([*lines, "", note, "", picture, "", f"Command: `{shlex.join(sys.argv)}`", "", *_origins(results)])


def _origins(results: Sequence[Result]) -> list[str]:
    """On what the runs were made, a paragraph for each kind of machine and versions."""
    found: dict[str, list[str]] = {}
    for result in results:
        for seed, origin in result.origins.items():
            found.setdefault(origin, []).append(f"{result.row.preset} seed {seed}")
    if len(found) == 1:
        return [f"Run by {next(iter(found))}", ""]
    return [line for origin, runs in found.items() for line in (f"Run by {origin}: {', '.join(runs)}", "")]


def _cells(result: Result) -> list[str]:
    row, runs = result.row, list(result.figures.values())
    cells = [row.label, f"`{row.preset}`", f"{preset(row.preset).num_parameters:,}", str(len(runs) or NOT_RUN)]
    for column in COLUMNS:
        cells.append(_spread([run[column] for run in runs]))
        cells.append("-" if row.paper is None else f"{getattr(row.paper, column):.3f}")
    return [*cells, f"{np.mean([run['minutes'] for run in runs]):.0f}" if runs else NOT_RUN]


def _spread(values: Sequence[float]) -> str:
    if not values:
        return NOT_RUN
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def _csv(results: Sequence[Result]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "preset", "seed", *COLUMNS, "minutes", *(f"paper_{column}" for column in COLUMNS)])
    for result in results:
        paper = ["" if result.row.paper is None else getattr(result.row.paper, column) for column in COLUMNS]
        for seed, run in result.figures.items():
            writer.writerow(
                [result.row.label, result.row.preset, seed, *(run[c] for c in (*COLUMNS, "minutes")), *paper]
            )
        if not result.figures:
            writer.writerow([result.row.label, result.row.preset, NOT_RUN, *[""] * (len(COLUMNS) + 1), *paper])
    return text.getvalue()
