"""The runs behind a table: made where they are missing, and read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maam.errors import MaamError, TrainingError
from maam.reproduction.experiments import Experiment, Row
from maam.training.folder import RunFolder
from maam.training.loop import Observer
from maam.training.recipe import Recipe
from maam.training.report import curves
from maam.training.session import train

Array = np.ndarray[Any, Any]


class Result(NamedTuple):
    """The finished runs of a row.

    Attributes:
        row: what they stand for.
        figures: of each run, by seed: accuracy, f1, precision, recall, minutes (of training).
        losses: the mean training loss of each epoch, by seed.
        origins: on what each was run, by seed: framework, precision, processor, versions.
    """

    row: Row
    figures: dict[int, dict[str, float]]
    losses: dict[int, Array]
    origins: dict[int, str]


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
        MaamError: as `maam.training.train` does.
    """
    for seed in seeds:
        for row in experiment.rows:
            folder = folder_of(out, row, seed, framework)
            if (folder.path / "results.json").exists():
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


def collect(experiment: Experiment, out: Path, seeds: Sequence[int], framework: str = "torch") -> list[Result]:
    """The finished runs of every row; a row without any has empty figures.

    Raises:
        TrainingError: a run's files are broken, or the runs were made by different recipes.
    """
    results = []
    recipes: dict[str, str] = {}
    for row in experiment.rows:
        figures, losses, origins = {}, {}, {}
        for seed in seeds:
            folder = folder_of(out, row, seed, framework)
            if not (folder.path / "results.json").exists():
                continue
            try:
                figures[seed] = _figures(folder)
                recipes[folder.path.name] = _recipe_of(folder)
                losses[seed] = _losses(folder)
                origins[seed] = origin_of(folder)
            except (MaamError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
                raise TrainingError(f"{folder.path}: the run's files are broken: {error}") from None
        results.append(Result(row, figures, losses, origins))
    if len(set(recipes.values())) > 1:
        raise TrainingError(f"{out}: these runs were made by different recipes: {', '.join(sorted(recipes))}")
    return results


def _figures(folder: RunFolder) -> dict[str, float]:
    found = json.loads((folder.path / "results.json").read_text("utf-8"))
    return {name: float(found[name]) for name in ("accuracy", "f1", "precision", "recall", "minutes")}


def _last_session(folder: RunFolder) -> dict[str, Any]:
    session: dict[str, Any] = json.loads(folder.run.read_text("utf-8"))["sessions"][-1]
    return session


def _recipe_of(folder: RunFolder) -> str:
    """The recipe but for what may differ from run to run; the precision is what trains fastest on a machine."""
    recipe = _last_session(folder)["recipe"]
    own = ("model", "seed", "presets", "precision")
    return json.dumps({name: value for name, value in recipe.items() if name not in own})


def origin_of(folder: RunFolder) -> str:
    """On what a run was made: framework, precision, device, processor, versions."""
    session = _last_session(folder)
    versions = dict(session["environment"])
    machine, cores = versions.pop("machine"), versions.pop("cores")
    named = ", ".join(f"{name} {version}" for name, version in versions.items() if version != "not installed")
    how = f"{session['framework']} {session['recipe']['precision']}, {session['device']}"
    return f"{how}: {machine}, {cores} cores; {named}"


def _losses(folder: RunFolder) -> Array:
    records = folder.log.records()
    epochs = sum(record["kind"] == "epoch" for record in records)
    steps = curves(records)[0]["loss"]
    return np.array([part.mean() for part in np.array_split(steps, epochs)])
