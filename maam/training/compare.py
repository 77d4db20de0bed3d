"""Comparison of runs: how their recipes differ, and the accuracy that each reached, as a table and a picture."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from maam import _io, plots
from maam._system import command_line
from maam.errors import MaamError, TrainingError
from maam.training.recipe import Recipe
from maam.training.report import read_curves
from maam.training.run_dir import RunFolder

Array = np.ndarray[Any, Any]
PathLike = str | os.PathLike[str]
AUTO = "auto"
NOTE = (
    'The accuracy is measured after the last finished epoch. "Best" is the highest of all epochs; because it is chosen '
    "on the images that it is measured on, it is optimistic. Training accuracy is the mean over the steps of the last "
    "epoch, on augmented images."
)
_EXPECTED = "pass the folder of a run (--out of maam train) or one that contains runs"


class Difference(NamedTuple):
    """A field that differs between two recipes.

    Attributes:
        field: the path of the field, such as "optimizer.lr".
        one: its value in the first recipe.
        other: its value in the second recipe.
    """

    field: str
    one: Any
    other: Any


class RunSummary(NamedTuple):
    """The recipe and the curves of a run, finished or not.

    Attributes:
        name: the name of the run's folder; its path if two runs have the same name.
        framework: "torch" or "mindspore"; comma-separated if the run was resumed in the other framework.
        recipe: the recipe of the run.
        training_accuracy: mean over the steps of each epoch, on augmented images, float64 (epochs,).
        test_accuracy: accuracy after each epoch, float64 (epochs,).
        minutes: training time of all finished epochs together.

    Example:
        >>> from maam.training import Recipe, RunSummary
        >>> accuracy = np.array([0.5, 0.75])
        >>> run = RunSummary("first", "torch", Recipe(model="maam_digits", data="digits"), accuracy, accuracy, 1.5)
        >>> float(run.test_accuracy[-1])
        0.75
    """

    name: str
    framework: str
    recipe: Recipe
    training_accuracy: Array
    test_accuracy: Array
    minutes: float


def differences(one: Recipe, other: Recipe) -> list[Difference]:
    """Return the fields in which two recipes differ, in the order of `Recipe`.

    The field `presets` has no effect on a run and is ignored. Precision "auto" is equal to any other: it means the
    fastest one on the machine of the run.
    """
    values, others = flat_fields(one), flat_fields(other)
    paths = [path for path in dict.fromkeys((*values, *others)) if path != "presets"]
    found = [Difference(path, values.get(path), others.get(path)) for path in paths]
    return [d for d in found if d.one != d.other and not (d.field == "precision" and AUTO in (d.one, d.other))]


def flat_fields(recipe: Recipe) -> dict[str, Any]:
    """Return the values of all fields of a recipe by their paths, such as "optimizer.lr"."""
    return dict(_flat(recipe.model_dump()))


def varying_fields(runs: Sequence[RunSummary]) -> list[str]:
    """Return the paths of the recipe fields that differ between the runs, in the order of `Recipe`."""
    found = {d.field for run in runs[1:] for d in differences(runs[0].recipe, run.recipe)}
    paths = dict.fromkeys(path for run in runs for path in flat_fields(run.recipe))
    return [path for path in paths if path in found]


def read_runs(
    paths: PathLike | Iterable[PathLike], *, on_broken: Callable[[str], None] | None = None
) -> list[RunSummary]:
    """Read runs and sort them by their last test accuracy, the best first.

    A run in progress is read up to its last finished epoch.

    Args:
        paths: one folder or several; each is the folder of a run or contains folders of runs. Runs inside a containing
            folder that have not finished an epoch are skipped.
        on_broken: called with the reason why a run cannot be read, which is then skipped; None raises an error.

    Returns:
        One summary for each run.

    Raises:
        TrainingError: there is no run with a finished epoch that can be read, or the files of a run are broken and
            `on_broken` is None.

    Example:
        >>> from maam.training import read_recipe, read_runs, train
        >>> recipe = read_recipe("digits").replaced({"epochs": 1, "batch_size": 256})
        >>> folder = train("maam_digits", recipe, out="runs/short")
        >>> [(run.name, len(run.test_accuracy)) for run in read_runs("runs")]
        [('short', 1)]
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not given:
        raise TrainingError(f"paths: expected at least one folder, got none; {_EXPECTED}")
    folders = list(dict.fromkeys(folder for path in given for folder in _run_folders(Path(path))))
    names = [folder.resolve().name for folder in folders]
    runs: list[RunSummary] = []
    for folder, name in zip(folders, names, strict=True):
        try:
            runs.append(_read(folder, name if names.count(name) == 1 else str(folder)))
        except TrainingError as error:
            if on_broken is None or (not runs and folder == folders[-1]):
                raise
            on_broken(str(error))
    return sorted(runs, key=lambda run: -run.test_accuracy[-1])


def tabulate(runs: Sequence[RunSummary], *, together: bool = False) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of a table with one row for each run.

    The columns are the name, the recipe fields that differ between the runs, and the results.

    Args:
        runs: the runs.
        together: whether the fields share one column, with a line for each field.
    """
    fields = varying_fields(runs)
    several_frameworks = len({run.framework for run in runs}) > 1
    together = together and bool(fields)
    start = ["run", *(["framework"] if several_frameworks else []), *(["recipe"] if together else fields)]
    rows = []
    for run in runs:
        values = flat_fields(run.recipe)
        own = [run.framework] if several_frameworks else []
        cells = [_cell(values.get(field)) for field in fields]
        if together:
            given = [f"{field} {cell}" for field, cell in zip(fields, cells, strict=True) if cell != "-"]
            cells = ["\n".join(given)]
        rows.append([run.name, *own, *cells, *_results(run)])
    return [*start, "epochs trained", f"{splits(runs)} accuracy", "best", "training accuracy", "minutes"], rows


def splits(runs: Sequence[RunSummary]) -> str:
    """Return the images that the runs are measured on: "test", "validation" or "test or validation"."""
    return " or ".join(sorted({run.recipe.split for run in runs}))


def render_runs(runs: Sequence[RunSummary], path: Path) -> str:
    """Write the table of runs to the Markdown file `path` and their curves to a picture beside it.

    Returns:
        The Markdown.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    picture = path.with_suffix(".png")
    head, rows = tabulate(runs)
    table = markdown_table(head, [[cell.replace("|", r"\|") for cell in row] for row in rows])
    lines = ["# Runs", "", *table, "", NOTE, "", f"![accuracy by epoch]({quote(os.fsencode(picture.name))})", ""]
    text = "\n".join([*lines, f"Command: `{command_line()}`", ""])
    training = {run.name: run.training_accuracy for run in runs}
    plots.draw_runs(training, {run.name: run.test_accuracy for run in runs}, picture, "Runs side by side", splits(runs))
    _io.write_text(path, text)
    return text


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    names = list(head)
    return [f"| {' | '.join(row)} |" for row in (names, ["---"] * len(names), *rows)]


def _run_folders(path: Path) -> list[Path]:
    """Return `path` if it is the folder of a run, else the folders of runs that it contains."""
    if _is_run(path):
        return [path]
    children = [child for child in sorted(path.glob("*/")) if not child.name.startswith(".")]
    found = [child for child in children if _is_run(child) and _has_epoch(child)]
    if not found:
        problem = "contains no run with a finished epoch" if path.is_dir() else "no such folder"
        raise TrainingError(f"{path}: {problem}; {_EXPECTED}")
    return found


def _is_run(path: Path) -> bool:
    return RunFolder(path).run.is_file()


def _has_epoch(path: Path) -> bool:
    return any(record["kind"] == "epoch" for record in RunFolder(path).log.records())


def _read(path: Path, name: str) -> RunSummary:
    folder = RunFolder(path)
    try:
        recipe = folder.recipe()
        curves = read_curves(folder.log.records(), recipe.batch_size)
        curves.check_complete()
        frameworks = dict.fromkeys(str(session.get("framework")) for session in folder.sessions())
    except MaamError as error:
        raise TrainingError(f"{path}: this run cannot be read: {error}") from None
    training, minutes = curves.means(curves.accuracy), float(curves.minutes.sum())
    return RunSummary(name, ", ".join(frameworks), recipe, training, curves.test_accuracy, minutes)


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _results(run: RunSummary) -> list[str]:
    accuracy = run.test_accuracy
    epochs = f"{len(accuracy)} of {run.recipe.epochs}"
    best = f"{accuracy.max():.2%}, epoch {accuracy.argmax() + 1}"
    return [epochs, f"{accuracy[-1]:.2%}", best, f"{run.training_accuracy[-1]:.2%}", f"{run.minutes:.0f}"]


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
