"""The runs behind a table: made where they are missing, and read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.paper.experiments import Experiment, Row, without_own
from maam.backend.protocol import Observer
from maam.errors import MaamError, TrainingError
from maam.training.compare import differences
from maam.training.recipe import Recipe
from maam.training.report import read_curves
from maam.training.run import train
from maam.training.run_dir import RunFolder

Array = np.ndarray[Any, Any]


class Run(NamedTuple):
    """A finished run.

    Attributes:
        figures: accuracy, f1, precision, recall, minutes (of training).
        training_loss: the mean over the steps of each epoch, float64 (epochs,).
        test_loss: after each epoch, float64 (epochs,).
        recipe: what it was made by.
        origin: on what it was made: framework, precision, processor, versions.
    """

    figures: dict[str, float]
    training_loss: Array
    test_loss: Array
    recipe: Recipe
    origin: str


class Result(NamedTuple):
    """A row, the seeds that were asked for, and the finished runs among them by seed."""

    row: Row
    seeds: tuple[int, ...]
    runs: dict[int, Run]


def folder_of(out: Path, row: Row, seed: int, framework: str) -> RunFolder:
    """Where the run of a row with a seed lies: rows that two tables share have one run."""
    return RunFolder(out / f"{row.preset}-seed{seed}-{framework}")


def run(
    experiment: Experiment,
    recipe: Recipe,
    out: Path,
    *,
    root: Path,
    seeds: Sequence[int],
    framework: str = "torch",
    device: str | None = None,
    observer: Callable[[str], Observer] | None = None,
) -> None:
    """Train every row with every seed, one after the other; go on with runs that were interrupted.

    Raises:
        TrainingError: a finished run was made by another recipe.
        MaamError: as `maam.training.train` does.
    """
    check_recipe(experiment, recipe, out, seeds, framework)
    for seed in seeds:
        for row in experiment.rows:
            folder = folder_of(out, row, seed, framework)
            if _is_finished(folder):
                continue
            train(
                row.preset,
                recipe.replaced({"seed": seed}),
                out=folder.path,
                root=root,
                framework=framework,
                device=device,
                resume=True,
                observer=None if observer is None else observer(folder.path.name),
            )


def check_recipe(
    experiment: Experiment, recipe: Recipe, out: Path, seeds: Sequence[int], framework: str = "torch"
) -> None:
    """Refuse finished runs that were made by another recipe; precision "auto" is what the machine of the run chose.

    Raises:
        TrainingError: there is one, or its files are broken.
    """
    for row in experiment.rows:
        for seed in seeds:
            folder = folder_of(out, row, seed, framework)
            if not _is_finished(folder):
                continue
            found = differences(_read(folder).recipe, recipe.replaced({"model": row.preset, "seed": seed}))
            if found:
                field, made, asked = found[0]
                raise TrainingError(
                    f"{folder.path}: this run was made with {field} {made}, not {asked}; "
                    "ask for the recipe that it was made by, or choose another --runs"
                )


def collect(experiment: Experiment, out: Path, seeds: Sequence[int], framework: str = "torch") -> list[Result]:
    """The finished runs of every row; a row may have none.

    Raises:
        TrainingError: no row has a run, a run's files are broken, or the runs were made by different recipes.
    """
    results = []
    for row in experiment.rows:
        folders = {seed: folder_of(out, row, seed, framework) for seed in seeds}
        runs = {seed: _read(folder) for seed, folder in folders.items() if _is_finished(folder)}
        results.append(Result(row, tuple(folders), runs))
    found = {folder_of(out, r.row, seed, framework).path.name: run for r in results for seed, run in r.runs.items()}
    if not found:
        given = ", ".join(map(str, seeds))
        raise TrainingError(f"{out}: no finished run of these rows in {framework} with seeds {given}; train them first")
    _check_alike(out, found)
    return results


def _is_finished(folder: RunFolder) -> bool:
    return (folder.path / "results.json").exists()


def _check_alike(out: Path, runs: Mapping[str, Run]) -> None:
    first = next(iter(runs))
    for name, run in runs.items():
        if gaps := without_own(differences(runs[first].recipe, run.recipe)):
            field, one, other = gaps[0]
            raise TrainingError(
                f"{out}: these runs were made by different recipes: {first}, {name} ({field} {one}, {other}); "
                "narrow --seeds, or make those of one recipe again in another --runs"
            )


def _read(folder: RunFolder) -> Run:
    try:
        recipe = folder.recipe()
        curves = read_curves(folder.log.records(), recipe.batch_size)
        curves.check_whole()
        if len(curves.epochs) != recipe.epochs:
            raise TrainingError(f"the log has {len(curves.epochs)} epochs, not the {recipe.epochs} of the recipe")
        figures = {**_figures(folder), "minutes": float(curves.minutes.sum())}
        return Run(figures, curves.means(curves.loss), curves.test_loss, recipe, origin_of(folder))
    except (MaamError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise TrainingError(f"{folder.path}: the run's files are broken: {error}") from None


def _figures(folder: RunFolder) -> dict[str, float]:
    found = json.loads((folder.path / "results.json").read_text("utf-8"))
    return {name: float(found[name]) for name in ("accuracy", "f1", "precision", "recall")}


def origin_of(folder: RunFolder) -> str:
    """On what a run was made: framework, precision, device, processor, versions; of each session that differs."""
    return "; then ".join(dict.fromkeys(map(_origin, folder.sessions())))


def _origin(session: dict[str, Any]) -> str:
    versions = dict(session["environment"])
    machine, cores = versions.pop("machine"), versions.pop("cores")
    named = ", ".join(f"{name} {version}" for name, version in versions.items() if version != "not installed")
    how = f"{session['framework']} {session['recipe']['precision']}, {session['device']}"
    return f"{how}: {machine}, {cores} cores; {named}"
