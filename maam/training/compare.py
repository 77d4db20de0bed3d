"""Runs side by side: in which fields their recipes differ, and how far each came."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maam.errors import MaamError, TrainingError
from maam.training.recipe import Recipe
from maam.training.report import read_curves
from maam.training.run_dir import RunFolder

Array = np.ndarray[Any, Any]
PathLike = str | os.PathLike[str]
AUTO = "auto"


class Difference(NamedTuple):
    """A field by its path, such as "optimizer.lr", and its two values."""

    field: str
    one: Any
    other: Any


class RunSummary(NamedTuple):
    """A run, finished or not.

    Attributes:
        name: of its folder; its path where two have one name.
        framework: "torch" or "mindspore"; both, in their order, where the run went on in another.
        recipe: what it is made by.
        training_accuracy: the mean over the steps of each epoch, on augmented images, float64 (epochs made,).
        test_accuracy: after each epoch, float64 (epochs made,).
        minutes: of training, all whole epochs together.
    """

    name: str
    framework: str
    recipe: Recipe
    training_accuracy: Array
    test_accuracy: Array
    minutes: float


def differences(one: Recipe, other: Recipe) -> list[Difference]:
    """The fields in which two recipes differ, in the order of `Recipe`; `presets` decides nothing and is left out.

    Precision "auto" is whatever a machine found fastest, so it differs from no other.
    """
    values, others = flat_fields(one), flat_fields(other)
    paths = [path for path in dict.fromkeys((*values, *others)) if path != "presets"]
    found = [Difference(path, values.get(path), others.get(path)) for path in paths]
    return [d for d in found if d.one != d.other and not (d.field == "precision" and AUTO in (d.one, d.other))]


def flat_fields(recipe: Recipe) -> dict[str, Any]:
    """All fields by their paths, such as "optimizer.lr"."""
    return dict(_flat(recipe.model_dump()))


def varying_fields(runs: Sequence[RunSummary]) -> list[str]:
    """The paths of the fields that are not the same in all runs, in the order of `Recipe`."""
    found = {d.field for run in runs[1:] for d in differences(runs[0].recipe, run.recipe)}
    paths = dict.fromkeys(path for run in runs for path in flat_fields(run.recipe))
    return [path for path in paths if path in found]


def read_runs(paths: PathLike | Iterable[PathLike]) -> list[RunSummary]:
    """The runs in a folder or several, each that of a run or one that holds such; the most accurate at its end first.

    A run that goes on is read as far as it has come; one without a whole epoch is left out of a folder of several.

    Raises:
        TrainingError: there is no run with a whole epoch, or the files of one are broken.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not given:
        raise TrainingError("no folder was given; expected that of a run (--out of maam train), or one of several")
    folders = list(dict.fromkeys(folder for path in given for folder in _folders(Path(path))))
    names = [folder.resolve().name for folder in folders]
    runs = [
        _read(folder, name if names.count(name) == 1 else str(folder))
        for folder, name in zip(folders, names, strict=True)
    ]
    return sorted(runs, key=lambda run: -run.test_accuracy[-1])


def _folders(path: Path) -> list[Path]:
    if _is_run(path):
        return [path]
    found = [child for child in sorted(path.glob("*/")) if _is_run(child) and _has_epoch(child)]
    if not found:
        missing = "holds no run with a whole epoch" if path.is_dir() else "no such folder"
        raise TrainingError(f"{path}: {missing}; expected the folder of a run (--out of maam train), or one of several")
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
        curves.check_whole()
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
