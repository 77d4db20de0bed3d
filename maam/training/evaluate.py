"""Evaluating a weights file in any room."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maam.backend.protocol import Capability
from maam.backend.registry import find_entry, load_backend, load_training_backend
from maam.errors import DataError, DeviceError, PresetError, RecipeError, WeightsError, require
from maam.spec import Model, Node
from maam.training.recipe import IMAGE_FOLDER, Images, Recipe
from maam.training.recipe_files import default_recipe
from maam.training.run_dir import RunFolder
from maam.training.sources import Reading, open_test
from maam.weights.exchange import read_whole
from maam.weights.file import check_path

Array = np.ndarray[Any, Any]
Track = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""What shows how far a loop over some items is, given a name for it and their number; it yields the items."""


def untracked(items: Iterable[Any], name: str, count: int) -> Iterable[Any]:
    """Show nothing."""
    return items


@dataclass(frozen=True)
class Evaluation:
    """Logits float32 (N, classes) for labels int32 (N,)."""

    logits: Array
    labels: Array

    @property
    def predictions(self) -> Array:
        """The class of the largest logit, int64 (N,)."""
        return np.asarray(self.logits.argmax(1))

    @property
    def accuracy(self) -> float:
        """The share of right predictions, 0 to 1."""
        return float((self.predictions == self.labels).mean())

    def top(self, count: int) -> float:
        """The share of images whose label is among the `count` largest logits; of equal ones the first count."""
        labels = self.labels[:, None].astype(np.int64)
        own = np.take_along_axis(self.logits, labels, 1)
        before = ~(self.logits <= own) | ((self.logits == own) & (np.arange(self.logits.shape[1]) < labels))
        return float((before.sum(1) < count).mean())

    @property
    def loss(self) -> float:
        """Mean cross entropy without label smoothing, in float64."""
        logits = self.logits.astype(np.float64)
        logits -= logits.max(1, keepdims=True)
        own = logits[np.arange(len(self.labels)), self.labels]
        return float((np.log(np.exp(logits).sum(1)) - own).mean())

    def macro(self) -> dict[str, float]:
        """Precision, recall and F1, each the mean over classes, by scikit-learn.

        Raises:
            MissingFrameworkError: scikit-learn is not installed.
        """
        require("sklearn", "train")
        from sklearn.metrics import precision_recall_fscore_support

        found = precision_recall_fscore_support(self.labels, self.predictions, average="macro", zero_division=0)
        return dict(zip(("precision", "recall", "f1"), map(float, found[:3]), strict=True))


def evaluate(predict: Callable[[Array], Array], batches: Iterable[tuple[Array, Array]]) -> Evaluation:
    """Run `predict` (images (B, C, H, W) to logits (B, classes)) over batches of images and labels (B,).

    Raises:
        DataError: there is no batch.
    """
    found = [(np.asarray(predict(images)), labels) for images, labels in batches]
    if not found:
        raise DataError("there is no image to evaluate on")
    logits, labels = zip(*found, strict=True)
    return Evaluation(np.concatenate(logits), np.concatenate(labels))


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
    entry = find_entry(framework)
    if Capability.TRAINING in entry.capabilities:
        return load_training_backend(framework).select_device(device)
    if device not in (None, "cpu"):
        raise DeviceError(
            f"device {device!r}: framework {framework!r} runs on the CPU only; leave device (--device) out"
        )
    return "cpu"


def open_model(
    spec: Node, arrays: Mapping[str, Array], framework: str, device: str | None = None
) -> Callable[[Array], Array]:
    """A model in inference mode, from images (B, C, H, W) to logits (B, classes), in any room.

    Raises:
        MaamError: there is no such framework or device here.
    """
    chosen = check_ready(framework, device)
    if Capability.TRAINING in find_entry(framework).capabilities:
        runner = load_training_backend(framework).make_training_runner(spec, seed=None, device=chosen)
    else:
        backend = load_backend(framework)
        runner = backend.make_runner(backend.build(spec))
    runner.write_arrays(arrays)
    return runner.forward
