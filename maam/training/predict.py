"""Prediction: classifying image files with a weights file or a run, in any backend."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maam.data.image_folder import EXTENSIONS, find_images
from maam.errors import DataError, ShapeError
from maam.reference.functions import softmax
from maam.spec import Model, Node, input_rule
from maam.training.evaluate import Track, image_preparation, open_model, untracked
from maam.training.recipe import Images, Recipe
from maam.training.run_dir import find_weights
from maam.training.sources import ReadOptions, image_channels, list_images
from maam.weights.exchange import read_whole
from maam.weights.pretrained import read_card

Array = np.ndarray[Any, Any]
PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Prediction:
    """The class probabilities of one image.

    Attributes:
        path: the image file.
        probabilities: softmax of the logits, float64 (classes,).
        class_names: the name of each class; "class 0", "class 1", ... if the names are unknown.

    Example:
        >>> import numpy as np
        >>> from maam.training import Prediction
        >>> Prediction("1.png", np.array([0.2, 0.7, 0.1]), ("cat", "dog", "frog")).top(2)
        (('dog', 0.7), ('cat', 0.2))
    """

    path: str
    probabilities: Array
    class_names: tuple[str, ...]

    def top(self, count: int = 1) -> tuple[tuple[str, float], ...]:
        """Return the names of the `count` most probable classes and their probabilities, the largest first."""
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
    """Classify image files with a weights file, or with the final weights of a run.

    Images are cropped and normalized as in the validation of the model's training; see `image_preparation`.

    Args:
        model: a weights file, the folder of a run, or a preset with pretrained weights; it must take RGB or gray
            images. For a model with one channel, the images are converted to gray.
        files: image files, or folders; a folder yields all images in it and its subfolders, sorted.
        framework: "torch" or "mindspore", in float32; or "reference", in float64.
        device: as in `train`.
        class_names: the name of each class. Default: the names in the run's description, or in the card of the file.
        recipe: determines how images are cropped and normalized. Default: the recipe of the run, or the default
            recipe of the preset.
        changes: changed fields of the recipe, such as {"images.size": 160}.
        num_workers: as in `train`.
        on_broken: as in `train`; "skip" leaves a broken file out and warns.
        track: shows the progress.

    Returns:
        One prediction for each image, in the order of `files`.

    Raises:
        MaamError: the file, an image, the names, the recipe, the framework or the device does not fit.

    Example:
        >>> from PIL import Image
        >>> from maam import reference
        >>> from maam.training import predict_files
        >>> reference.save_weights(reference.build("cnn", seed=0), "cnn.safetensors")
        >>> Image.new("RGB", (40, 32), "red").save("red.png")
        >>> (found,) = predict_files("cnn.safetensors", "red.png", framework="reference")
        >>> found.path, found.probabilities.shape
        ('red.png', (10,))
    """
    _check_order(model)
    weights = find_weights(model)
    spec, arrays = read_whole(weights.path, np.dtype(np.float32))
    if class_names is None and weights.run is not None:
        class_names = weights.run.class_names()
    if class_names is None and (card := read_card(weights.path)) is not None:
        class_names = card.class_names
    classifier = classifier_of(spec, weights.path)
    names = _class_names(classifier, class_names)
    images = image_preparation(classifier, weights, recipe, changes)
    check_images(classifier, images)
    paths = tuple(image_paths(files))
    batches = list_images(images, paths, spec, ReadOptions(framework, num_workers, on_broken))
    predict = open_model(spec, arrays, framework, device)
    logits = [np.asarray(predict(x)) for x, _ in track(batches.epoch(0), framework, len(batches))]
    read = [path for path in paths if path not in batches.broken]
    probabilities = softmax(np.concatenate(logits).astype(np.float64))  # (N, classes)
    return [Prediction(path, p, names) for path, p in zip(read, probabilities, strict=True)]


def _check_order(model: object) -> None:
    if isinstance(model, (str, os.PathLike)) and os.fspath(model).lower().endswith(EXTENSIONS):
        raise DataError(
            f"{os.fspath(model)}: this is the name of an image; the model comes first, then the images: "
            "predict_files(MODEL, IMAGES), or maam predict MODEL IMAGES"
        )


def classifier_of(spec: Node, path: Path) -> Model:
    """Return the spec of a file, after checking that it is a classifier.

    Raises:
        DataError: the spec is a layer, or its output is not a vector of logits.
    """
    if not isinstance(spec, Model) or len(spec.output_shape(spec.input_shape)) != 1:
        raise DataError(
            f"{path}: expected the weights of a classifier, got those of a layer or of a model without logits"
        )
    return spec


def _class_names(spec: Model, given: Sequence[str] | None) -> tuple[str, ...]:
    classes = spec.num_classes
    if isinstance(given, (str, Mapping)):
        raise DataError(f"class_names: expected a sequence with one name for each class, got {given!r}")
    names = tuple(f"class {index}" for index in range(classes)) if given is None else tuple(map(str, given))
    if len(names) != classes:
        raise DataError(f"class_names: expected {classes} names, one for each class of the model, got {len(names)}")
    return names


def check_images(spec: Model, images: Images) -> None:
    """Raise DataError unless the model accepts RGB or gray images of the recipe's size."""
    channels = image_channels(spec)
    try:
        input_rule(spec).check((1, channels, images.size or 0, images.size or 0))
    except ShapeError as error:
        kind = "gray" if channels == 1 else "RGB"
        raise DataError(f"image files are read as {kind} images of {images.size}x{images.size}: {error}") from None


def image_paths(files: Sequence[PathLike] | PathLike) -> Iterator[str]:
    """Yield the paths of image files, and of all images in folders.

    Raises:
        DataError: an item is not a path.
    """
    for path in [files] if isinstance(files, (str, os.PathLike)) else files:
        if not isinstance(path, (str, os.PathLike)):
            raise DataError(
                f"files: expected paths of image files, got an object of type {type(path).__name__}; for arrays load "
                "the model: maam.torch.load(path)(x), x of shape (N, C, H, W)"
            )
        if Path(path).is_dir():
            yield from find_images(path)
        else:
            yield str(Path(path))
