"""Pages for tables and figures: Markdown, CSV and a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.paper.experiments import Experiment, name_recipe
from benchmarks.paper.results import Result
from maam import _io, plots
from maam._system import command_line
from maam.spec import preset
from maam.training.compare import markdown_table

NOT_RUN = "not run"
SCORES = ("accuracy", "f1", "precision", "recall")
_DIGITS = 6


def render(name: str, experiment: Experiment, results: Sequence[Result], out: Path) -> str:
    """Write NAME.md, NAME.csv and NAME.png to the folder `out` and return the Markdown.

    A name that starts with "figure" makes a page of the losses of each epoch; other names make a page of the results
    of the last epoch.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    out.mkdir(parents=True, exist_ok=True)
    return (_render_losses if name.startswith("figure") else _render_scores)(name, experiment, results, out)


def _render_scores(name: str, experiment: Experiment, results: Sequence[Result], out: Path) -> str:
    head = ["model", "preset", "parameters", "seeds", "recipe", "epochs"]
    for score in SCORES:
        head += [score, "paper"]
    table = markdown_table([*head, "training, min"], map(_score_cells, results))
    note = "Results of the last epoch on all test images: mean ± standard deviation over the seeds."
    text = _page(name, experiment, results, table, note)
    _io.write_text(out / f"{name}.md", text)
    _io.write_text(out / f"{name}.csv", _scores_csv(results))
    found = {r.row.label: [run.scores["accuracy"] for run in r.runs.values()] for r in results}
    paper = {r.row.label: r.row.paper.accuracy for r in results if r.row.paper}
    notes = {r.row.label: f"{_count_seeds(r)} seeds" for r in results if r.runs and _missing_seeds(r)}
    plots.draw_accuracies(found, paper, out / f"{name}.png", experiment.title, notes)
    return text


def _score_cells(result: Result) -> list[str]:
    row, runs = result.row, list(result.runs.values())
    cells = [row.label, f"`{row.preset}`", f"{preset(row.preset).num_parameters:,}", _count_seeds(result)]
    cells += [f"`{name_recipe(runs[0].recipe)}`", str(runs[0].recipe.epochs)] if runs else ["-", "-"]
    for score in SCORES:
        cells.append(_mean_and_deviation([run.scores[score] for run in runs]))
        cells.append("-" if row.paper is None else f"{getattr(row.paper, score):.3f}")
    return [*cells, f"{np.mean([run.scores['minutes'] for run in runs]):.0f}" if runs else NOT_RUN]


def _scores_csv(results: Sequence[Result]) -> str:
    head = ["model", "preset", "seed", "recipe", "epochs", *SCORES, "minutes", *(f"paper_{score}" for score in SCORES)]
    rows: list[list[object]] = []
    for result in results:
        start = [result.row.label, result.row.preset]
        paper = ["" if result.row.paper is None else getattr(result.row.paper, score) for score in SCORES]
        for seed, run in result.runs.items():
            scores = [run.scores[name] for name in (*SCORES, "minutes")]
            rows.append([*start, seed, name_recipe(run.recipe), run.recipe.epochs, *scores, *paper])
        for seed in _missing_seeds(result):
            rows.append([*start, seed, NOT_RUN, *[""] * (len(SCORES) + 2), *paper])
    return _csv(head, rows)


def _render_losses(name: str, experiment: Experiment, results: Sequence[Result], out: Path) -> str:
    body = [line for result in results for line in _loss_section(result)]
    smoothing = max((run.recipe.label_smoothing for result in results for run in result.runs.values()), default=0.0)
    with_smoothing = f", with label smoothing {smoothing:g}" if smoothing else ""
    note = (
        f"The loss is cross entropy. Training: mean over the steps of an epoch, on augmented images{with_smoothing}. "
        "Test: after the epoch, without augmentation and smoothing. All: mean ± standard deviation over the seeds."
    )
    text = _page(name, experiment, results, body[:-1], note)
    _io.write_text(out / f"{name}.md", text)
    _io.write_text(out / f"{name}.csv", _losses_csv(results))
    found = [result for result in results if result.runs]
    training = {r.row.label: np.array([run.training_loss for run in r.runs.values()]) for r in found}
    test = {r.row.label: np.array([run.test_loss for run in r.runs.values()]) for r in found}
    plots.draw_losses(training, test, out / f"{name}.png", experiment.title)
    return text


def _loss_section(result: Result) -> list[str]:
    title = f"## {result.row.label}: `{result.row.preset}`"
    if not result.runs:
        return [title, "", NOT_RUN.capitalize() + ".", ""]
    recipe = next(iter(result.runs.values())).recipe
    summary = f"Seeds: {_count_seeds(result)}. Recipe: `{name_recipe(recipe)}`. Epochs: {recipe.epochs}."
    head = ["epoch", *(f"{kind}, seed {seed}" for kind in ("training", "test") for seed in result.runs)]
    if len(result.runs) > 1:
        head += ["training, all", "test, all"]
    return [title, "", summary, "", *markdown_table(head, _loss_rows(result)), ""]


def _loss_rows(result: Result) -> Iterator[list[str]]:
    runs = list(result.runs.values())
    for epoch in range(len(runs[0].training_loss)):
        kinds = [[run.training_loss[epoch] for run in runs], [run.test_loss[epoch] for run in runs]]
        cells = [f"{value:.3f}" for kind in kinds for value in kind]
        yield [str(epoch + 1), *cells, *(_mean_and_deviation(kind) for kind in kinds if len(runs) > 1)]


def _losses_csv(results: Sequence[Result]) -> str:
    rows: list[list[object]] = []
    for result in results:
        start = [result.row.label, result.row.preset]
        for seed, run in result.runs.items():
            for epoch, losses in enumerate(zip(run.training_loss, run.test_loss, strict=True), 1):
                rows.append([*start, seed, epoch, *(round(float(loss), _DIGITS) for loss in losses)])
        rows += [[*start, seed, NOT_RUN, "", ""] for seed in _missing_seeds(result)]
    return _csv(["model", "preset", "seed", "epoch", "training_loss", "test_loss"], rows)


def _page(name: str, experiment: Experiment, results: Sequence[Result], body: Iterable[str], note: str) -> str:
    """Return the Markdown: title, body, note, picture, command, and the machines of the runs."""
    statement = experiment.statement
    lines = [f"# {experiment.title}", "", *body, "", note, ""]
    lines += [f"The figure in the paper has no numbers. The text says: {statement}", ""] if statement else []
    lines += [f"![{experiment.title}]({name}.png)", "", f"Command: `{command_line()}`", ""]
    runs_by_origin: dict[str, list[str]] = {}
    for result in results:
        for seed, run in result.runs.items():
            runs_by_origin.setdefault(run.origin, []).append(f"{result.row.preset} seed {seed}")
    for origin, runs in runs_by_origin.items():
        which = f": {', '.join(runs)}" if len(runs_by_origin) > 1 else ""
        lines += [f"Trained with {origin}{which}", ""]
    return "\n".join(lines)


def _csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()


def _count_seeds(result: Result) -> str:
    """Return how many of the requested seeds have a run."""
    finished, requested = len(result.runs), len(result.seeds)
    return NOT_RUN if not finished else str(finished) if finished == requested else f"{finished} of {requested}"


def _missing_seeds(result: Result) -> list[int]:
    return [seed for seed in result.seeds if seed not in result.runs]


def _mean_and_deviation(values: Sequence[float]) -> str:
    if not values:
        return NOT_RUN
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
