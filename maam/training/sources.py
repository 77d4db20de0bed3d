"""The data of a recipe: batches to train on, and batches to evaluate on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from maam import data
from maam.errors import DataError, RecipeError, ShapeError
from maam.spec import Node, input_rule
from maam.training.image_sources import TEST_BATCH, Reading, training_images, validation_images
from maam.training.recipe import IMAGE_FOLDER, Augmentation, Images, Recipe

Array = np.ndarray[Any, Any]


class Batches(Protocol):
    """Batches in an order that seed and epoch decide."""

    def __len__(self) -> int:
        """The number of batches in an epoch."""

    def epoch(self, index: int, start: int = 0) -> Iterator[tuple[Array, Array]]:
        """Yield images float32 (B, C, H, W) and labels int32 (B,) of an epoch, from batch `start` on."""


@dataclass(frozen=True)
class Source:
    """Training batches, test batches in a fixed order, and the classes' names."""

    train: Batches
    test: Batches
    class_names: tuple[str, ...]

    def test_batches(self) -> Iterator[tuple[Array, Array]]:
        """All test images, float32 (B, C, H, W), and labels, int32 (B,)."""
        return self.test.epoch(0)


def open_source(
    recipe: Recipe,
    root: Path | None,
    spec: Node,
    reading: Reading = Reading(),  # noqa: B008
    share: tuple[int, int] = (0, 1),
) -> Source:
    """The data of a recipe for a model, or a process's share of it; `reading` is for image files.

    Raises:
        DataError: the data set is missing or broken, or has fewer images than a batch.
        RecipeError: its classes or its images do not fit the model, or the augmentation does not fit its images.
    """
    if recipe.data == IMAGE_FOLDER:
        files = training_images(recipe, root, spec, reading, share)
        validation = validation_images(recipe.images, root, spec, reading, share=share)
        _check_folder(spec, files)
        _check_shares(len(validation.dataset), share)
        return Source(files, validation, files.dataset.class_names)
    train, test = (_dataset(recipe.data, root, split) for split in ("train", "test"))
    check_fit(spec, recipe.data, train.images.shape[1:], len(train.class_names))
    _check_augmentation(recipe, train.images.shape[2:])
    _check_shares(len(test), share)
    drawn = data.Augmentation(**recipe.augmentation.model_dump())
    augmentation = None if recipe.augmentation == NO_AUGMENTATION else drawn
    options: dict[str, Any] = {"seed": recipe.seed, "augmentation": augmentation, "drop_last": True, "share": share}
    loader = data.BatchLoader(train, recipe.batch_size, **options)
    checked = data.BatchLoader(test, TEST_BATCH * share[1], shuffle=False, share=share)
    return Source(loader, checked, train.class_names)


def open_test(
    name: str,
    root: Path | None,
    spec: Node,
    limit: int | None = None,
    *,
    images: Images = Images(),  # noqa: B008
    reading: Reading = Reading(),  # noqa: B008
) -> Batches:
    """Batches of the test images, or of `limit` of them, of a data set for a model.

    `limit` takes the first, or in a folder evenly spaced ones; `images` and `reading` are for image files.

    Raises:
        DataError: the data set is missing or broken.
        RecipeError: its classes or its images do not fit the model.
    """
    if name == IMAGE_FOLDER:
        checked = validation_images(images, root, spec, reading, limit)
        _check_folder(spec, checked)
        return checked
    test = _dataset(name, root, "test")
    check_fit(spec, name, test.images.shape[1:], len(test.class_names))
    if limit is not None:
        test = test.subset(range(min(limit, len(test))))
    return data.BatchLoader(test, TEST_BATCH, shuffle=False)


def _check_folder(spec: Node, batches: data.ImageBatches) -> None:
    size = batches.work.framing.size
    check_fit(spec, IMAGE_FOLDER, (3, size, size), len(batches.dataset.class_names))


NO_AUGMENTATION = Augmentation(padding=0, flip_probability=0.0, cutout=0)


def check_fit(spec: Node, name: str, image_shape: tuple[int, ...], classes: int) -> None:
    """Refuse a data set whose images (C, H, W) or number of classes are not those of the model.

    Raises:
        RecipeError: with what to change.
    """
    try:
        input_rule(spec).check((1, *image_shape))
        output = spec.output_shape(image_shape)
    except ShapeError as error:
        raise RecipeError(f"data {name}: {error}; choose a preset for such images, or override in_channels") from None
    if output != (classes,):
        raise RecipeError(
            f"data {name} has {classes} classes, but the model has outputs {output}; "
            f"override num_classes in the recipe (-o overrides.num_classes={classes})"
        )


def _check_shares(images: int, share: tuple[int, int]) -> None:
    if images < share[1]:
        raise DataError(f"{images} images to evaluate on, but {share[1]} processes; start fewer")


def _check_augmentation(recipe: Recipe, size: tuple[int, ...]) -> None:
    """Refuse what could leave nothing of an image of `size` (H, W)."""
    side, found = min(size), recipe.augmentation
    for field, value, most in (("padding", found.padding, side - 1), ("cutout", found.cutout, side)):
        if value > most:
            raise RecipeError(
                f"augmentation.{field}: {value}, but data {recipe.data} has images of {size[0]}x{size[1]}; "
                f"expected at most {most}: -o augmentation.{field}={most // 4}"
            )


def _dataset(name: str, root: Path | None, split: str) -> data.ImageDataset:
    if name == "digits":
        return data.digits(split)
    if name not in ("cifar10", "cifar100"):
        raise DataError(f"data: expected one of cifar10, cifar100, digits, imagefolder, got {name!r}")
    if root is None:
        raise DataError(f"data {name} needs root (--root DIR), the folder that `maam data {name} DIR` wrote")
    return getattr(data, name)(root, split)
