"""What the pages of tables and figures have in common."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

import numpy as np

from maam.environment import command_line
from maam.reproduction.experiments import Experiment
from maam.reproduction.results import Result

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
