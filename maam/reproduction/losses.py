"""The loss curves of a figure as Markdown, CSV and picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from maam import files, plots
from maam.reproduction.experiments import Experiment
from maam.reproduction.pages import NOT_RUN, count_seeds, csv_text, markdown_table, missing_seeds, page, spread
from maam.reproduction.recipes import name_recipe
from maam.reproduction.results import Result, Run

_DIGITS = 6


def render_losses(name: str, experiment: Experiment, results: Sequence[Result], out: Path) -> str:
    """Write NAME.md, NAME.csv and NAME.png to the existing folder `out`; returns the Markdown.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    body = [line for result in results for line in _section(result)]
    text = page(name, experiment, results, body[:-1], _note(results))
    files.write_text(out / f"{name}.md", text)
    files.write_text(out / f"{name}.csv", _csv(results))
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


def _csv(results: Sequence[Result]) -> str:
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
