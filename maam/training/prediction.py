"""Classifying image files with a weights file or a run, in any room."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maam.data.image_folder import find_images
from maam.errors import DataError, PresetError, RecipeError, ShapeError
from maam.spec import Model, Node, input_rule
from maam.training.evaluation import Track, untracked
from maam.training.file_evaluation import open_model
from maam.training.folder import RunFolder, weights_of
from maam.training.image_sources import Reading, listed_images
from maam.training.library import default_recipe
from maam.training.recipe import Images, Recipe
from maam.weights.exchange import read_whole

Array = np.ndarray[Any, Any]
PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a classifier makes of one image.

    Attributes:
        path: the image file.
        probabilities: softmax of the logits, float64 (classes,).
        class_names: the name of each class; "class 0", "class 1", ... where they are not known.
    """

    path: str
    probabilities: Array
    class_names: tuple[str, ...]

    def top(self, count: int = 1) -> tuple[tuple[str, float], ...]:
        """The `count` most probable classes by name, and their probabilities, falling."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return tuple((self.class_names[index], float(self.probabilities[index])) for index in order)


def predict_files(
    model: PathLike,
    files: Sequence[PathLike] | PathLike,
    *,
    framework: str = "torch",
    device: str | None = None,
    class_names: Sequence[str] | None = None,
    recipe: Recipe | None = None,
    num_workers: int = 0,
    on_broken: str = "error",
    track: Track = untracked,
) -> list[Prediction]:
    """What a weights file, or the final weights of a run's folder, make of image files, in their order.

    Images are cut and normalised as in validation: by the recipe's `images` for models of image folders; for those of
    CIFAR, the central square is resized to the model's size, and its pixels are scaled to [0, 1].

    Args:
        model: the file or folder; it takes RGB images.
        files: image files, or folders, which stand for all images below them, sorted.
        framework: "torch" or "mindspore", in float32; or "reference", in float64.
        device: as in `train`.
        class_names: one for each logit; those that the run was trained with where None.
        recipe: the run's where None, else the default recipe of the preset that the weights file names.
        num_workers: as in `train`.
        on_broken: as in `train`; "skip" leaves the file out.
        track: shows how far it is.

    Raises:
        MaamError: the file, an image, the names, the recipe, the framework or the device does not fit.
    """
    run = RunFolder(model) if Path(model).is_dir() else None
    spec, arrays = read_whole(weights_of(model), np.dtype(np.float32))
    images = _images(spec, recipe or (run.recipe() if run else None) or _default(spec))
    names = _names(spec, class_names or (run.class_names() if run else None))
    paths = tuple(_listed(files))
    batches = listed_images(images, paths, spec, Reading(framework, num_workers, on_broken))
    predict = open_model(spec, arrays, framework, device)
    logits = [np.asarray(predict(x)) for x, _ in track(batches.epoch(0), framework, len(batches))]
    read = [path for path in paths if path not in batches.broken]
    return [Prediction(path, p, names) for path, p in zip(read, _softmax(np.concatenate(logits)), strict=True)]


def _images(spec: Node, recipe: Recipe) -> Images:
    """How images are cut and normalised for a model, which is refused if it takes no RGB images."""
    size = spec.input_shape[1] if isinstance(spec, Model) else 0
    images = recipe.images
    if recipe.data != "imagefolder":
        images = Images(size=size or None, resize=size or None, mean=(0, 0, 0), std=(1, 1, 1))
    size = images.size or size
    try:
        input_rule(spec).check((1, 3, size, size))
    except ShapeError as error:
        raise DataError(f"image files are read as RGB images of {size}x{size}: {error}") from None
    return images


def _default(spec: Node) -> Recipe:
    try:
        return default_recipe(spec.name if isinstance(spec, Model) else "")
    except (PresetError, RecipeError):
        raise RecipeError(
            "nothing says how images are to be cut and normalised for these weights; name a recipe (--recipe NAME), or "
            "give the folder of the run"
        ) from None


def _names(spec: Node, given: Sequence[str] | None) -> tuple[str, ...]:
    output = spec.output_shape(spec.input_shape) if isinstance(spec, Model) else ()
    if len(output) != 1:
        raise DataError("these weights are those of a layer, or of a model without logits; give a classifier's")
    names = tuple(given) if given is not None else tuple(f"class {index}" for index in range(output[0]))
    if len(names) != output[0]:
        raise DataError(f"{len(names)} class names, but the model has {output[0]} classes; expected one for each")
    return names


def _listed(files: Sequence[PathLike] | PathLike) -> Iterator[str]:
    for path in [files] if isinstance(files, (str, os.PathLike)) else files:
        if Path(path).is_dir():
            yield from find_images(path)
        else:
            yield str(Path(path))


def _softmax(logits: Array) -> Array:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)  # (N, classes)
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(1, keepdims=True))
