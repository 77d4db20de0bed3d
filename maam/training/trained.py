"""A trained model as people name it, and how image files are prepared for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from maam.errors import PresetError, RecipeError, WeightsError
from maam.spec import Model
from maam.training.folder import RunFolder
from maam.training.library import default_recipe
from maam.training.recipe import IMAGE_FOLDER, Images, Recipe
from maam.weights.file import check_path

_IMAGES = "images."
_ADVICE = "name a recipe (--recipe NAME), or the folder of the run, or give -o images.mean=... and -o images.std=..."


class Trained(NamedTuple):
    """A weights file, and the run that made it; None where that is not known."""

    path: Path
    run: RunFolder | None


def find_trained(path: str | os.PathLike[str]) -> Trained:
    """What `path` names: a weights file, or the final weights of a run's folder.

    A run's final and best weights, named as files, are known by the description that lies beside them.

    Raises:
        WeightsError: `path` is no path, or a folder without final weights.
    """
    check_path(path)
    found = Path(path)
    run = RunFolder(found if found.is_dir() else found.parent)
    described = run if run.run.exists() else None
    if not found.is_dir():
        return Trained(found, described if found.name in (run.final.name, run.best.name) else None)
    if not run.final.exists():
        if described is None:
            raise WeightsError(
                f"{found}: this folder holds no run; name a weights file, or the folder that training wrote"
            )
        best = f", or name {run.best}" if run.best.exists() else ""
        raise WeightsError(f"{found}: this run has not ended: there is no {run.final.name}; go on with it{best}")
    return Trained(run.final, described)


def image_preparation(
    spec: Model, trained: Trained, recipe: Recipe | None = None, changes: Mapping[str, Any] | None = None
) -> Images:
    """How image files are cut and normalised for a trained model, as in the validation of its training.

    For a model of images in memory (CIFAR), the central square is resized to the model's size, and its pixels are
    scaled to [0, 1].

    Args:
        spec: the model's.
        trained: the model.
        recipe: says it where given; else the run's recipe does, else the default one of the preset, if its images
            are as large as the model's.
        changes: fields that differ, such as {"images.size": 160}; mean and std among them where nothing else says how.

    Raises:
        RecipeError: nothing says it, or a change is no field of `images`, or has a wrong value.
        TrainingError: the run's recipe cannot be read.
    """
    size = spec.input_shape[1]
    found = recipe or (trained.run.recipe() if trained.run is not None else None) or _default(spec.name, size)
    if found is None and not {f"{_IMAGES}mean", f"{_IMAGES}std"} <= set(changes or ()):
        raise RecipeError(f"{trained.path}: nothing says how images are cut and normalised for this model; {_ADVICE}")
    images = Images(size=size) if found is None else _images(found, size)
    for field in changes or ():
        if not field.startswith(_IMAGES):
            raise RecipeError(f"override {field!r}: it does not act here; expected images.size, images.resize, ...")
    return Recipe(data=IMAGE_FOLDER, images=images).replaced(dict(changes or {})).images


def _default(name: str, size: int) -> Recipe | None:
    """The default recipe of a preset; None where there is none for images of `size`."""
    try:
        recipe = default_recipe(name)
    except (PresetError, RecipeError):
        return None
    return recipe if recipe.data != IMAGE_FOLDER or recipe.images.size in (None, size) else None


def _images(recipe: Recipe, size: int) -> Images:
    if recipe.data != IMAGE_FOLDER:
        return Images(size=size, resize=size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return recipe.images.model_copy(update={"size": recipe.images.size or size})
