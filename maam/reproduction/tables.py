"""A reproduced table as Markdown, CSV and picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maam import files, plots
from maam.reproduction.experiments import Experiment
from maam.reproduction.pages import NOT_RUN, count_seeds, csv_text, markdown_table, missing_seeds, page, spread
from maam.reproduction.recipes import name_recipe
from maam.reproduction.results import Result
from maam.spec import preset

COLUMNS = ("accuracy", "f1", "precision", "recall")


def render_table(name: str, experiment: Experiment, results: Sequence[Result], out: Path) -> str:
    """Write NAME.md, NAME.csv and NAME.png to the existing folder `out`; returns the Markdown.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    text = _markdown(name, experiment, results)
    files.write_text(out / f"{name}.md", text)
    files.write_text(out / f"{name}.csv", _csv(results))
    found = {r.row.label: [run.figures["accuracy"] for run in r.runs.values()] for r in results}
    paper = {r.row.label: r.row.paper.accuracy for r in results if r.row.paper}
    notes = {r.row.label: f"{count_seeds(r)} seeds" for r in results if r.runs and missing_seeds(r)}
    plots.draw_accuracies(found, paper, out / f"{name}.png", experiment.title, notes)
    return text


def _markdown(name: str, experiment: Experiment, results: Sequence[Result]) -> str:
    head = ["model", "preset", "parameters", "seeds", "recipe", "epochs"]
    for column in COLUMNS:
        head += [column, "the paper's"]
    note = "Mean ± standard deviation over the seeds, of the last epoch, on all test images."
    table = markdown_table([*head, "training, min"], [_cells(result) for result in results])
    return page(name, experiment, results, table, note)


def _cells(result: Result) -> list[str]:
    row, runs = result.row, list(result.runs.values())
    cells = [row.label, f"`{row.preset}`", f"{preset(row.preset).num_parameters:,}", count_seeds(result)]
    cells += [f"`{name_recipe(runs[0].recipe)}`", str(runs[0].recipe.epochs)] if runs else ["-", "-"]
    for column in COLUMNS:
        cells.append(spread([run.figures[column] for run in runs]))
        cells.append("-" if row.paper is None else f"{getattr(row.paper, column):.3f}")
    return [*cells, f"{np.mean([run.figures['minutes'] for run in runs]):.0f}" if runs else NOT_RUN]


def _csv(results: Sequence[Result]) -> str:
    head = ["model", "preset", "seed", "recipe", "epochs", *COLUMNS, "minutes", *(f"paper_{c}" for c in COLUMNS)]
    rows: list[list[object]] = []
    for result in results:
        start = [result.row.label, result.row.preset]
        paper = ["" if result.row.paper is None else getattr(result.row.paper, column) for column in COLUMNS]
        for seed, run in result.runs.items():
            figures = [run.figures[column] for column in (*COLUMNS, "minutes")]
            rows.append([*start, seed, name_recipe(run.recipe), run.recipe.epochs, *figures, *paper])
        for seed in missing_seeds(result):
            rows.append([*start, seed, NOT_RUN, *[""] * (len(COLUMNS) + 2), *paper])
    return csv_text(head, rows)
