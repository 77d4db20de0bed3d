"""Evaluating a weights file in any room."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from maam.errors import DataError, DeviceError, RecipeError, require
from maam.reference import Referee
from maam.spec import Model, Node
from maam.training.evaluation import Evaluation, Track, evaluate, untracked
from maam.training.folder import RunFolder
from maam.training.image_sources import Reading
from maam.training.recipe import IMAGE_FOLDER, Images, Recipe
from maam.training.rooms import FRAMEWORKS, REFERENCE, check_framework, find_room
from maam.training.sources import open_test
from maam.training.trained import find_trained, image_preparation
from maam.weights.exchange import read_whole

Array = np.ndarray[Any, Any]


def evaluate_file(
    model: str | os.PathLike[str],
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    framework: str = "torch",
    device: str | None = None,
    limit: int | None = None,
    recipe: Recipe | None = None,
    changes: Mapping[str, Any] | None = None,
    num_workers: int = 0,
    on_broken: str = "error",
    track: Track = untracked,
) -> Evaluation:
    """What a weights file, or the final weights of a run's folder, make of the test images of the data set `name`.

    Args:
        model: the file or folder.
        name: of the data set.
        root: its folder.
        framework: "torch" or "mindspore", in float32; or "reference", in float64.
        device: as in `train`.
        limit: evaluate on so many images only: the first, or in a folder evenly spaced ones.
        recipe: says how image files are cut and normalised; where None the run's, else the default one of the preset.
        changes: fields of the recipe that differ, such as {"images.size": 160}.
        num_workers: as in `train`.
        on_broken: as in `train`.
        track: shows how far it is.

    Raises:
        MaamError: the file, the data, the framework or the device does not fit.
    """
    check_ready(framework, device)
    require("sklearn", "train")  # for the figures: better now than after minutes
    trained = find_trained(model)
    spec, arrays = read_whole(trained.path, np.dtype(np.float32))
    images = Images()
    if name != IMAGE_FOLDER and (recipe is not None or changes):
        raise RecipeError(f"a recipe acts on image files, data {IMAGE_FOLDER}, alone; leave it out for {name}")
    if name == IMAGE_FOLDER and isinstance(spec, Model):
        images = image_preparation(spec, trained, recipe, changes)
    reading = Reading(framework, num_workers, on_broken)
    test = open_test(name, None if root is None else Path(root), spec, limit, images=images, reading=reading)
    if name == IMAGE_FOLDER and trained.run is not None:
        _check_names(trained.run, test)
    batches = track(test.epoch(0), framework, len(test))
    return evaluate(open_model(spec, arrays, framework, device), batches)


def _check_names(run: RunFolder, test: Any) -> None:
    """Refuse a folder whose classes have other names than those that the run was trained on: its labels mean others.

    Raises:
        DataError: it has.
    """
    known, found = run.class_names(), test.dataset.class_names
    if known is not None and tuple(known) != tuple(found):
        other = next((pair for pair in zip(known, found, strict=False) if pair[0] != pair[1]), (len(known), len(found)))
        raise DataError(
            f"{run.path}: the run was trained on other classes than the folder has ({other[0]} there, {other[1]} "
            f"here); rename the folder's, or where they mean the same evaluate a copy of {run.final.name} elsewhere"
        )


def check_ready(framework: str, device: str | None) -> str:
    """The device on which a room, or the reference, evaluates.

    Raises:
        MaamError: there is no such framework or device here.
    """
    check_framework(framework, (*FRAMEWORKS, REFERENCE))
    if framework != REFERENCE:
        return str(find_room(framework).select_device(device))
    if device not in (None, "cpu"):
        raise DeviceError(f"device {device!r}: the reference computes on the cpu")
    return "cpu"


def open_model(
    spec: Node, arrays: Mapping[str, Array], framework: str, device: str | None = None
) -> Callable[[Array], Array]:
    """A model in inference mode, from images (B, C, H, W) to logits (B, classes), in any room.

    Raises:
        MaamError: there is no such framework or device here.
    """
    chosen = check_ready(framework, device)
    if framework == REFERENCE:
        return Referee(spec, arrays)
    runner = find_room(framework).make_runner(spec, seed=None, device=chosen)
    runner.write_arrays(arrays)
    forward: Callable[[Array], Array] = runner.forward
    return forward
