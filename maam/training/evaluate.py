"""Evaluation: the figures of a model on a data set, for a weights file or a run, in any backend."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from maam._messages import listed
from maam.backend.protocol import Capability
from maam.backend.registry import find_entry, load_backend, load_training_backend
from maam.errors import DataError, DeviceError, PresetError, RecipeError, TrainingError, require
from maam.spec import Model, Node
from maam.training.recipe import IMAGE_FOLDER, Images, Recipe
from maam.training.recipe_files import default_recipe
from maam.training.run_dir import FoundWeights, find_weights
from maam.training.sources import ReadOptions, open_test
from maam.weights.exchange import read_whole

Array = np.ndarray[Any, Any]
Track = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""A function that shows the progress of a loop: it gets the items, a name and their number, and yields the items."""
_IMAGES = "images."


def untracked(items: Iterable[Any], name: str, count: int) -> Iterable[Any]:
    """Return the items without showing progress."""
    return items


@dataclass(frozen=True)
class Evaluation:
    """The outputs of a model on a data set, and the figures that follow from them.

    Attributes:
        logits: float (N, classes).
        labels: int32 (N,).
        mirrored: the mean of the logits of each image and of its mirror image, float (N, classes); None if it was not
            asked for. Only `mirrored_accuracy` uses them; all other figures use `logits`.
        notes: remarks on the figures, such as the classes without images.

    Example:
        >>> import numpy as np
        >>> from maam.training import Evaluation
        >>> logits = np.array([[2.0, 1.0, 0.0], [0.0, 2.0, 1.0]], np.float32)
        >>> found = Evaluation(logits, labels=np.array([0, 2], np.int32))
        >>> found.accuracy, found.top(2)
        (0.5, 1.0)
    """

    logits: Array
    labels: Array
    mirrored: Array | None = None
    notes: tuple[str, ...] = ()

    @property
    def predictions(self) -> Array:
        """The class with the largest logit, int64 (N,)."""
        return np.asarray(self.logits.argmax(1))

    @property
    def accuracy(self) -> float:
        """The share of correct predictions, 0 to 1."""
        return float((self.predictions == self.labels).mean())

    @property
    def mirrored_accuracy(self) -> float | None:
        """The accuracy with mirror images averaged, 0 to 1; None if there are no `mirrored` logits."""
        return None if self.mirrored is None else float((self.mirrored.argmax(1) == self.labels).mean())

    def top(self, count: int) -> float:
        """Return the share of images whose label is among the `count` largest logits; the lower class wins a tie."""
        labels = self.labels[:, None].astype(np.int64)
        own = np.take_along_axis(self.logits, labels, 1)
        before = ~(self.logits <= own) | ((self.logits == own) & (np.arange(self.logits.shape[1]) < labels))
        return float((before.sum(1) < count).mean())

    @property
    def loss(self) -> float:
        """The mean cross entropy without label smoothing, in float64."""
        logits = self.logits.astype(np.float64)
        logits -= logits.max(1, keepdims=True)
        own = logits[np.arange(len(self.labels)), self.labels]
        return float((np.log(np.exp(logits).sum(1)) - own).mean())

    def macro(self) -> dict[str, float]:
        """Return precision, recall and F1, each the mean over the classes that have images, computed by scikit-learn.

        Raises:
            MissingFrameworkError: scikit-learn is not installed.
        """
        require("sklearn", "train")
        from sklearn.metrics import precision_recall_fscore_support

        found = precision_recall_fscore_support(
            self.labels, self.predictions, labels=np.unique(self.labels), average="macro", zero_division=0
        )
        return dict(zip(("precision", "recall", "f1"), map(float, found[:3]), strict=True))


def evaluate(
    predict: Callable[[Array], Array], batches: Iterable[tuple[Array, Array]], mirror: bool = False
) -> Evaluation:
    """Run a model on batches.

    Args:
        predict: maps images (B, C, H, W) to logits (B, classes).
        batches: images and labels (B,).
        mirror: whether to run it also on horizontally mirrored images.

    Raises:
        DataError: there is no batch.
    """
    logits, labels, mirrored = [], [], []
    for images, own in batches:
        logits.append(np.asarray(predict(images)))
        labels.append(own)
        if mirror:
            flipped = np.asarray(predict(np.ascontiguousarray(images[..., ::-1])))
            mirrored.append((logits[-1] + flipped) / 2)
    if not logits:
        raise DataError("batches: expected at least one image to evaluate on, got none")
    return Evaluation(np.concatenate(logits), np.concatenate(labels), np.concatenate(mirrored) if mirror else None)


def evaluate_file(
    model: str | os.PathLike[str],
    name: str | None = None,
    root: str | os.PathLike[str] | None = None,
    *,
    framework: str = "torch",
    device: str | None = None,
    limit: int | None = None,
    class_names: Sequence[str] | None = None,
    recipe: Recipe | None = None,
    changes: Mapping[str, Any] | None = None,
    num_workers: int = 0,
    on_broken: str = "error",
    mirror: bool = False,
    track: Track = untracked,
) -> Evaluation:
    """Evaluate a weights file, or the final weights of a run, on the test images of a data set.

    Args:
        model: a weights file, the folder of a run, or the name of a preset with pretrained weights.
        name: the name of the data set: "cifar10", "cifar100", "digits" or "imagefolder". Default: the data of the run,
            or of the default recipe of the preset.
        root: the folder of the data set. Default: that of the run, if `name` is its data.
        framework: "torch" or "mindspore", in float32; or "reference", in float64.
        device: as in `train`.
        limit: the number of images; None for all. A folder of image files yields evenly spaced ones, other data sets
            their first ones.
        class_names: the class name of each output. They label a folder of image files, which may lack some class
            folders. Default: the names in the run's description, or else the sorted names of the class folders.
        recipe: determines how image files are cropped and normalized. Default: the recipe of the run, or the default
            recipe of the preset.
        changes: changed fields of the recipe, such as {"images.size": 160}.
        num_workers: as in `train`.
        on_broken: as in `train`.
        mirror: whether to also average the logits of images and their mirror images; see
            `Evaluation.mirrored_accuracy`.
        track: shows the progress.

    Returns:
        Logits and labels, with accuracy, loss and other figures. Its notes name the classes without images.

    Raises:
        MaamError: the file, the data, the framework or the device is not suitable.

    Example:
        >>> from maam import reference
        >>> from maam.training import evaluate_file
        >>> reference.save_weights(reference.build("maam_digits", seed=0), "drawn.safetensors")
        >>> evaluate_file("drawn.safetensors", "digits", framework="reference", limit=20).logits.shape
        (20, 10)
    """
    check_device(framework, device)
    require("sklearn", "train")  # for the figures; before minutes of work
    weights = find_weights(model)
    spec, arrays = read_whole(weights.path, np.dtype(np.float32))
    images = Images()
    name, root = _find_data(weights, spec, name, root)
    if name != IMAGE_FOLDER and (recipe is not None or changes):
        raise RecipeError(f"recipe: this applies to data {IMAGE_FOLDER} only; omit it for data {name}")
    if name == IMAGE_FOLDER and isinstance(spec, Model):
        images = image_preparation(spec, weights, recipe, changes)
    if name == IMAGE_FOLDER and class_names is None and weights.run is not None:
        class_names = weights.run.class_names()
    elif name != IMAGE_FOLDER and class_names is not None:
        raise DataError(f"class_names: this applies to data {IMAGE_FOLDER} only; omit it for data {name}")
    reading = ReadOptions(framework, num_workers, on_broken)
    place = None if root is None else Path(root)
    test = open_test(name, place, spec, limit, images=images, reading=reading, class_names=class_names)
    batches = track(test.epoch(0), framework, len(test))
    found = evaluate(open_model(spec, arrays, framework, device), batches, mirror)
    if name == IMAGE_FOLDER and class_names is not None and limit is None:
        return replace(found, notes=_missing_classes(found.labels, class_names))
    return found


def _find_data(
    weights: FoundWeights, spec: Node, name: str | None, root: str | os.PathLike[str] | None
) -> tuple[str, str | os.PathLike[str] | None]:
    """Return the name and the folder of the data; by default those of the run, or of the preset's recipe.

    Raises:
        RecipeError: no recipe names the data.
        TrainingError: `name` is not given, and the run's description is broken.
    """
    session: dict[str, Any] = {}
    own = None
    if weights.run is not None:
        with contextlib.suppress(TrainingError) if name is not None else contextlib.nullcontext():
            session, own = weights.run.sessions()[-1], weights.run.recipe().data
    if name is None and own is None and isinstance(spec, Model):
        with contextlib.suppress(PresetError, RecipeError):
            own = default_recipe(spec.name).data
    if (chosen := name or own) is None:
        raise RecipeError(f"{weights.path}: no recipe names the data to evaluate on; give it (--data NAME)")
    return chosen, session.get("root") if root is None and chosen == own else root


def _missing_classes(labels: Array, class_names: Sequence[str]) -> tuple[str, ...]:
    present = set(labels.tolist())
    missing = [name for label, name in enumerate(class_names) if label not in present]
    if not missing:
        return ()
    names = f"{listed(missing[:5])}{', ...' if len(missing) > 5 else ''}"
    return (f"{len(missing)} of {len(class_names)} classes have no images: {names}",)


def image_preparation(
    spec: Model, weights: FoundWeights, recipe: Recipe | None = None, changes: Mapping[str, Any] | None = None
) -> Images:
    """Return how image files are cropped and normalized for a trained model, as in the validation of its training.

    For a model that was trained on images in memory (CIFAR), the central square is resized to the model's size, and
    pixels are scaled to [0, 1].

    Args:
        spec: the model.
        weights: its weights file and run.
        recipe: a recipe that determines it. Default: the recipe of the run, or the default recipe of the preset if its
            images have the size of the model.
        changes: changed fields, such as {"images.size": 160}; mean and std are required if there is no recipe.

    Raises:
        RecipeError: there is no recipe, or a change is not a field of `images` or has a wrong value.
        TrainingError: the run's recipe cannot be read.
    """
    size = spec.input_shape[1]
    found = recipe or (weights.run.recipe() if weights.run is not None else None) or _default_recipe(spec.name, size)
    if found is None and not {f"{_IMAGES}mean", f"{_IMAGES}std"} <= set(changes or ()):
        raise RecipeError(
            f"{weights.path}: no recipe determines how images are cropped and normalized for this model; give a recipe "
            "(--recipe NAME), the folder of the run, or -o images.mean=... and -o images.std=..."
        )
    if found is None:
        images = Images(size=size)
    elif found.data == IMAGE_FOLDER:
        images = found.images.model_copy(update={"size": found.images.size or size})
    else:
        images = Images(size=size, resize=size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    for field in changes or ():
        if not field.startswith(_IMAGES):
            raise RecipeError(
                f"override {field!r}: this has no effect here; expected a field of images, such as images.size"
            )
    return Recipe(data=IMAGE_FOLDER, images=images).replaced(dict(changes or {})).images


def _default_recipe(preset: str, size: int) -> Recipe | None:
    """Return the default recipe of a preset; None if there is none for images of `size`."""
    try:
        recipe = default_recipe(preset)
    except (PresetError, RecipeError):
        return None
    return recipe if recipe.data != IMAGE_FOLDER or recipe.images.size in (None, size) else None


def check_device(framework: str, device: str | None) -> str:
    """Return the device on which a backend evaluates; None chooses the best one.

    Raises:
        MaamError: the framework or the device is not available.
    """
    entry = find_entry(framework)
    if Capability.TRAINING in entry.capabilities:
        return load_training_backend(framework).select_device(device)
    if device not in (None, "cpu"):
        raise DeviceError(
            f"device {device!r}: framework {framework!r} supports the CPU only; leave device (--device) out"
        )
    return "cpu"


def open_model(
    spec: Node, arrays: Mapping[str, Array], framework: str, device: str | None = None
) -> Callable[[Array], Array]:
    """Build a model in a backend, and return it as a function from images (B, C, H, W) to logits (B, classes).

    Raises:
        MaamError: the framework or the device is not available.
    """
    chosen = check_device(framework, device)
    if Capability.TRAINING in find_entry(framework).capabilities:
        runner = load_training_backend(framework).make_training_runner(spec, seed=None, device=chosen)
    else:
        backend = load_backend(framework)
        runner = backend.make_runner(backend.build(spec))
    runner.write_arrays(arrays)
    return runner.forward
