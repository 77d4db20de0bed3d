"""The runs behind a table: training of missing runs, and reading of finished ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.paper.experiments import Experiment, Row, recipe_differences
from maam.errors import MaamError, TrainingError
from maam.training import Observer, train
from maam.training.compare import differences
from maam.training.recipe import Recipe
from maam.training.report import Curves, read_curves
from maam.training.run_dir import RunFolder

Array = np.ndarray[Any, Any]
_BROKEN = (MaamError, OSError, ValueError, KeyError, TypeError, IndexError)
"""Errors that the broken files of a run can raise."""


class Run(NamedTuple):
    """A finished run.

    Attributes:
        scores: accuracy, f1, precision, recall, and the minutes of training.
        training_loss: mean over the steps of each epoch, float64 (epochs,).
        test_loss: loss after each epoch, float64 (epochs,).
        recipe: the recipe of the run.
        origin: framework, precision, processor and versions.
    """

    scores: dict[str, float]
    training_loss: Array
    test_loss: Array
    recipe: Recipe
    origin: str


class Result(NamedTuple):
    """A row of a table with the requested seeds and the finished runs by seed."""

    row: Row
    seeds: tuple[int, ...]
    runs: dict[int, Run]


def run_folder(out: Path, row: Row, seed: int, framework: str) -> RunFolder:
    """Return the folder of the run of a row; tables with the same row share its run."""
    return RunFolder(out / f"{row.preset}-seed{seed}-{framework}")


def missing_runs(experiment: Experiment, out: Path, seeds: Sequence[int], framework: str) -> list[RunFolder]:
    """Return the folders of the runs that are not finished yet."""
    folders = (run_folder(out, row, seed, framework) for seed in seeds for row in experiment.rows)
    return [folder for folder in folders if not _is_finished(folder)]


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
    """Train the missing runs of an experiment one after the other, and resume interrupted ones.

    Args:
        experiment: the rows to train.
        recipe: the recipe for all rows; its model and seed are replaced.
        out: folder of the runs.
        root: folder of CIFAR-10.
        seeds: seeds for each row.
        framework: "torch" or "mindspore".
        device: as in `maam.training.train`.
        observer: function from the name of a run to its observer.

    Raises:
        TrainingError: a finished run has another recipe, or an interrupted one other epochs.
        MaamError: as in `maam.training.train`.
    """
    check_recipe(experiment, recipe, out, seeds, framework)
    for seed in seeds:
        for row in experiment.rows:
            folder = run_folder(out, row, seed, framework)
            if _is_finished(folder):
                continue
            _check_epochs(folder, recipe)
            train(
                row.preset,
                recipe.replaced({"seed": seed}),
                out=folder.path,
                root=root,
                framework=framework,
                device=device,
                resume="auto",
                observer=None if observer is None else observer(folder.path.name),
            )


def _check_epochs(folder: RunFolder, recipe: Recipe) -> None:
    """Check that an interrupted run has the epochs of the recipe; `train` would train it longer."""
    if folder.run.exists() and (before := folder.recipe().epochs) != recipe.epochs:
        raise TrainingError(
            f"{folder.path}: this run was started with epochs {before}, not {recipe.epochs}; "
            "request the recipe of the run, or choose another folder with --runs"
        )


def check_recipe(
    experiment: Experiment, recipe: Recipe, out: Path, seeds: Sequence[int], framework: str = "torch"
) -> None:
    """Check that finished runs have the given recipe; precision "auto" is equal to any other.

    Raises:
        TrainingError: a run has another recipe, or its files are broken.
    """
    for row in experiment.rows:
        for seed in seeds:
            folder = run_folder(out, row, seed, framework)
            if not _is_finished(folder):
                continue
            found = differences(_read_run(folder).recipe, recipe.replaced({"model": row.preset, "seed": seed}))
            if found:
                field, used, requested = found[0]
                raise TrainingError(
                    f"{folder.path}: this run was made with {field} {used}, not {requested}; "
                    "request the recipe of the run, or choose another folder with --runs"
                )


def collect(experiment: Experiment, out: Path, seeds: Sequence[int], framework: str = "torch") -> list[Result]:
    """Read the finished runs of each row; a row may have none.

    Raises:
        TrainingError: there is no finished run, the files of a run are broken, or the recipes of the runs differ.
    """
    results = []
    found: dict[str, Run] = {}
    for row in experiment.rows:
        folders = {seed: run_folder(out, row, seed, framework) for seed in seeds}
        runs = {seed: _read_run(folder) for seed, folder in folders.items() if _is_finished(folder)}
        found |= {folders[seed].path.name: run for seed, run in runs.items()}
        results.append(Result(row, tuple(folders), runs))
    if not found:
        given = ", ".join(map(str, seeds))
        raise TrainingError(
            f"{out}: no finished run of these rows in {framework} with seeds {given}; "
            "train them first, without --collect"
        )
    first, *others = found
    for name in others:
        if gaps := recipe_differences(found[first].recipe, found[name].recipe):
            field, one, other = gaps[0]
            raise TrainingError(
                f"{out}: the recipes of these runs differ: {first}, {name} ({field} {one}, {other}); "
                "select fewer --seeds, or train runs with one recipe in another folder (--runs)"
            )
    return results


def read_log(folder: RunFolder) -> Curves:
    """Return the curves of a run up to its last finished epoch.

    Raises:
        TrainingError: the files of the run are broken.
    """
    try:
        curves = read_curves(folder.log.records(), folder.recipe().batch_size)
        curves.check_complete()
    except _BROKEN as error:
        raise _broken(folder, error) from None
    return curves


def describe_origin(folder: RunFolder) -> str:
    """Return framework, precision, device, processor and versions of a run, once for each session that differs.

    Raises:
        TrainingError: the description of the run is broken.
    """
    try:
        return "; then ".join(dict.fromkeys(map(_origin, folder.sessions())))
    except _BROKEN as error:
        raise _broken(folder, error) from None


def _is_finished(folder: RunFolder) -> bool:
    return (folder.path / "results.json").exists()


def _read_run(folder: RunFolder) -> Run:
    curves = read_log(folder)
    try:
        recipe = folder.recipe()
        if len(curves.epochs) != recipe.epochs:
            raise TrainingError(f"the log has {len(curves.epochs)} epochs, the recipe {recipe.epochs}")
        found = json.loads((folder.path / "results.json").read_text("utf-8"))
        scores = {name: float(found[name]) for name in ("accuracy", "f1", "precision", "recall")}
        scores["minutes"] = float(curves.minutes.sum())
    except _BROKEN as error:
        raise _broken(folder, error) from None
    return Run(scores, curves.means(curves.loss), curves.test_loss, recipe, describe_origin(folder))


def _broken(folder: RunFolder, error: BaseException) -> TrainingError:
    return TrainingError(f"{folder.path}: the files of this run are broken: {error}")


def _origin(session: dict[str, Any]) -> str:
    versions = dict(session["environment"])
    machine, cores = versions.pop("machine"), versions.pop("cores")
    packages = ", ".join(f"{name} {version}" for name, version in versions.items() if version != "not installed")
    setting = f"{session['framework']} {session['recipe']['precision']}, {session['device']}"
    return f"{setting}: {machine}, {cores} cores; {packages}"
