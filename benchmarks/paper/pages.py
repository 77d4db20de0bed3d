"""What the pages of tables and figures have in common."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.paper.experiments import Experiment, name_recipe
from benchmarks.paper.results import Result, Run
from maam import _io, plots
from maam._system import command_line
from maam.spec import preset

NOT_RUN = "not run"


def page(name: str, experiment: Experiment, results: Sequence[Result], body: Iterable[str], note: str) -> str:
    """The Markdown around `body`: title, note, picture, command, and on what the runs were made."""
    picture = f"![{experiment.title}]({name}.png)"
    command = f"Command: `{command_line()}`"
    said = [f"The paper's figure has no numbers. Its text says: {experiment.said}", ""] if experiment.said else []
    parts = [f"# {experiment.title}", "", *body, "", note, "", *said, picture, "", command, "", *_origins(results)]
    return "\n".join(parts)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]


def csv_text(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()


def count_seeds(result: Result) -> str:
    """How many of the seeds that were asked for have a run."""
    made, asked = len(result.runs), len(result.seeds)
    return NOT_RUN if not made else str(made) if made == asked else f"{made} of {asked}"


def missing_seeds(result: Result) -> list[int]:
    """The seeds that were asked for and have no run."""
    return [seed for seed in result.seeds if seed not in result.runs]


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation, the deviation where there are several values."""
    if not values:
        return NOT_RUN
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def _origins(results: Sequence[Result]) -> list[str]:
    """On what the runs were made, a paragraph for each kind of machine and versions."""
    found: dict[str, list[str]] = {}
    for result in results:
        for seed, run in result.runs.items():
            found.setdefault(run.origin, []).append(f"{result.row.preset} seed {seed}")
    if len(found) == 1:
        return [f"Run by {next(iter(found))}", ""]
    return [line for origin, runs in found.items() for line in (f"Run by {origin}: {', '.join(runs)}", "")]


COLUMNS = ("accuracy", "f1", "precision", "recall")


def render_table(name: str, experiment: Experiment, results: Sequence[Result], out: Path) -> str:
    """Write NAME.md, NAME.csv and NAME.png to the existing folder `out`; returns the Markdown.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    text = _markdown(name, experiment, results)
    _io.write_text(out / f"{name}.md", text)
    _io.write_text(out / f"{name}.csv", _csv(results))
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


_DIGITS = 6


def render_losses(name: str, experiment: Experiment, results: Sequence[Result], out: Path) -> str:
    """Write NAME.md, NAME.csv and NAME.png to the existing folder `out`; returns the Markdown.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    body = [line for result in results for line in _section(result)]
    text = page(name, experiment, results, body[:-1], _note(results))
    _io.write_text(out / f"{name}.md", text)
    _io.write_text(out / f"{name}.csv", _losses_csv(results))
    run = [result for result in results if result.runs]
    training = {r.row.label: np.array([one.training_loss for one in r.runs.values()]) for r in run}
    test = {r.row.label: np.array([one.test_loss for one in r.runs.values()]) for r in run}
    plots.draw_losses(training, test, out / f"{name}.png", experiment.title)
    return text


def _section(result: Result) -> list[str]:
    title = f"## {result.row.label}: `{result.row.preset}`"
    if not result.runs:
        return [title, "", NOT_RUN.capitalize() + ".", ""]
    recipe = next(iter(result.runs.values())).recipe
    said = f"Seeds: {count_seeds(result)}. Recipe: `{name_recipe(recipe)}`, {recipe.epochs} epochs."
    return [title, "", said, "", *markdown_table(_head(result), _rows(result)), ""]


def _head(result: Result) -> list[str]:
    head = ["epoch", *(f"{kind}, seed {seed}" for kind in ("training", "test") for seed in result.runs)]
    return head if len(result.runs) == 1 else [*head, "training, all", "test, all"]


def _rows(result: Result) -> Iterator[list[str]]:
    runs = list(result.runs.values())
    for epoch in range(len(runs[0].training_loss)):
        kinds = [[run.training_loss[epoch] for run in runs], [run.test_loss[epoch] for run in runs]]
        cells = [f"{value:.3f}" for kind in kinds for value in kind]
        yield [str(epoch + 1), *cells, *(spread(kind) for kind in kinds if len(runs) > 1)]


def _note(results: Sequence[Result]) -> str:
    smoothing = max((run.recipe.label_smoothing for result in results for run in result.runs.values()), default=0.0)
    smoothed = f", with label smoothing {smoothing:g}" if smoothing else ""
    return (
        f"Cross entropy: training, the mean over the steps of an epoch, on augmented images{smoothed}; test, after the "
        'epoch, without either. "All": mean ± standard deviation over the seeds.'
    )


def _losses_csv(results: Sequence[Result]) -> str:
    rows = [row for result in results for row in _lines(result)]
    return csv_text(["model", "preset", "seed", "epoch", "training_loss", "test_loss"], rows)


def _lines(result: Result) -> Iterator[list[object]]:
    start = [result.row.label, result.row.preset]
    for seed, run in result.runs.items():
        for epoch, losses in enumerate(_pairs(run), 1):
            yield [*start, seed, epoch, *losses]
    for seed in missing_seeds(result):
        yield [*start, seed, NOT_RUN, "", ""]


def _pairs(run: Run) -> Iterator[tuple[float, float]]:
    for training, test in zip(run.training_loss, run.test_loss, strict=True):
        yield round(float(training), _DIGITS), round(float(test), _DIGITS)


def render(name: str, experiment: Experiment, results: Sequence[Result], out: Path) -> str:
    """Write NAME.md, NAME.csv and NAME.png to the folder `out`; returns the Markdown.

    A name that starts with "figure" gets the losses of each epoch, another one the figures of the last epoch.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    out.mkdir(parents=True, exist_ok=True)
    return (render_losses if name.startswith("figure") else render_table)(name, experiment, results, out)
