"""Classifying image files with a weights file or a run, in any room."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maam.data.image_folder import find_images
from maam.errors import DataError, ShapeError
from maam.spec import Model, Node, input_rule
from maam.training.evaluate import Track, find_trained, image_preparation, open_model, untracked
from maam.training.recipe import Images, Recipe
from maam.training.sources import Reading, listed_images
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
    changes: Mapping[str, Any] | None = None,
    num_workers: int = 0,
    on_broken: str = "error",
    track: Track = untracked,
) -> list[Prediction]:
    """What a weights file, or the final weights of a run's folder, make of image files, in their order.

    Images are cut and normalised as in the validation of the model's training; see `image_preparation`.

    Args:
        model: the file or folder; it takes RGB images.
        files: image files, or folders, which stand for all images below them, sorted.
        framework: "torch" or "mindspore", in float32; or "reference", in float64.
        device: as in `train`.
        class_names: one for each logit; those that the run was trained with where None.
        recipe: says how images are cut and normalised; where None the run's, else the default one of the preset.
        changes: fields of the recipe that differ, such as {"images.size": 160}.
        num_workers: as in `train`.
        on_broken: as in `train`; "skip" leaves a broken file out, with a warning.
        track: shows how far it is.

    Raises:
        MaamError: the file, an image, the names, the recipe, the framework or the device does not fit.
    """
    trained = find_trained(model)
    spec, arrays = read_whole(trained.path, np.dtype(np.float32))
    if class_names is None and trained.run is not None:
        class_names = trained.run.class_names()
    classifier = _classifier(spec, trained.path)
    names = _names(classifier, class_names)
    images = image_preparation(classifier, trained, recipe, changes)
    _check_images(classifier, images)
    paths = tuple(_listed(files))
    batches = listed_images(images, paths, spec, Reading(framework, num_workers, on_broken))
    predict = open_model(spec, arrays, framework, device)
    logits = [np.asarray(predict(x)) for x, _ in track(batches.epoch(0), framework, len(batches))]
    read = [path for path in paths if path not in batches.broken]
    return [Prediction(path, p, names) for path, p in zip(read, _softmax(np.concatenate(logits)), strict=True)]


def _classifier(spec: Node, path: Path) -> Model:
    if not isinstance(spec, Model) or len(spec.output_shape(spec.input_shape)) != 1:
        raise DataError(f"{path}: the weights of a layer, or of a model without logits; give a classifier's")
    return spec


def _names(spec: Model, given: Sequence[str] | None) -> tuple[str, ...]:
    classes = spec.output_shape(spec.input_shape)[0]
    if isinstance(given, (str, Mapping)):
        raise DataError(f"class_names: expected a sequence of names, one for each class, got {given!r}")
    names = tuple(f"class {index}" for index in range(classes)) if given is None else tuple(map(str, given))
    if len(names) != classes:
        raise DataError(f"{len(names)} class names, but the model has {classes} classes; expected one for each")
    return names


def _check_images(spec: Model, images: Images) -> None:
    try:
        input_rule(spec).check((1, 3, images.size or 0, images.size or 0))
    except ShapeError as error:
        raise DataError(f"image files are read as RGB images of {images.size}x{images.size}: {error}") from None


def _listed(files: Sequence[PathLike] | PathLike) -> Iterator[str]:
    for path in [files] if isinstance(files, (str, os.PathLike)) else files:
        if not isinstance(path, (str, os.PathLike)):
            raise DataError(
                f"expected paths of image files, got an object of type {type(path).__name__}; arrays are for a loaded "
                "model: maam.torch.load(path)(x), x of (N, C, H, W)"
            )
        if Path(path).is_dir():
            yield from find_images(path)
        else:
            yield str(Path(path))


def _softmax(logits: Array) -> Array:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)  # (N, classes)
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(1, keepdims=True))
