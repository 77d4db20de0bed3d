"""The data of a recipe: batches to train on, and batches to evaluate on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from maam import data
from maam.backend.registry import is_installed, load_training_backend, trainable_names
from maam.data import ImageBatches, ImageFolder, imagefolder
from maam.data.image_batches import check_on_broken
from maam.data.transforms import Framing
from maam.errors import DataError, MissingFrameworkError, RecipeError, ShapeError
from maam.spec import Model, Node, input_rule
from maam.training.recipe import IMAGE_FOLDER, Augmentation, Images, Recipe

TEST_BATCH = 250


@dataclass(frozen=True)
class Reading:
    """How image files are read; it decides no pixel, so it is no part of a recipe.

    Attributes:
        framework: whose pipeline decodes, "torch" or "mindspore"; for "reference" the first that is installed.
        num_workers: see `maam.data.ImageBatches`, like `on_broken`.
        on_broken: "error" or "skip".
    """

    framework: str = "torch"
    num_workers: int = 0
    on_broken: str = "error"

    def __post_init__(self) -> None:
        """Raise DataError where `on_broken` is neither."""
        check_on_broken(self.on_broken)


def training_images(
    recipe: Recipe, root: Path | None, spec: Node, reading: Reading, share: tuple[int, int] = (0, 1)
) -> ImageBatches:
    """Batches of random resized crops of the images in root/train.

    Raises:
        DataError: the folder is missing or broken, or has fewer images than a batch.
        MissingFrameworkError: the framework that decodes is not installed.
    """
    framing = recipe.images.framings(_size(spec))[0]
    options = {"seed": recipe.seed, "drop_last": True, "share": share}
    return _batches(_folder(root, "train"), recipe.batch_size, framing, recipe.images, reading, **options)


def validation_images(
    images: Images,
    root: Path | None,
    spec: Node,
    reading: Reading,
    limit: int | None = None,
    share: tuple[int, int] = (0, 1),
) -> ImageBatches:
    """Batches of central crops of the images in root/val, or of `limit` evenly spaced ones, in their order.

    Raises:
        DataError, MissingFrameworkError: as `training_images` does.
    """
    folder = _folder(root, "val")
    if limit is not None:
        folder = folder.spread(limit)
    framing = images.framings(_size(spec))[1]
    return _batches(folder, TEST_BATCH * share[1], framing, images, reading, shuffle=False, share=share)


def listed_images(images: Images, files: tuple[str, ...], spec: Node, reading: Reading) -> ImageBatches:
    """Batches of central crops of image files, in their order; all labels are 0.

    Raises:
        DataError: there is none.
        MissingFrameworkError: the framework that decodes is not installed.
    """
    if not files:
        raise DataError("no image files: name some, or a folder with files that end in .jpg, .png, ...")
    folder = ImageFolder(Path(), files, np.zeros(len(files), np.int32), ("",))
    return _batches(folder, TEST_BATCH, images.framings(_size(spec))[1], images, reading, shuffle=False)


def _folder(root: Path | None, split: str) -> ImageFolder:
    if root is None:
        raise DataError("data imagefolder needs root (--root DIR), the folder that holds train and val")
    return imagefolder(root, split)


def _size(spec: Node) -> int:
    """The height that a model names."""
    if not isinstance(spec, Model):
        raise DataError("data imagefolder needs a whole model, whose spec names an image size")
    return spec.input_shape[1]


def _batches(
    folder: ImageFolder, batch_size: int, framing: Framing, images: Images, reading: Reading, **options: Any
) -> ImageBatches:
    batches = load_training_backend(_decoder(reading.framework)).image_batches()
    return batches(
        folder,
        batch_size,
        framing=framing,
        mean=images.mean,
        std=images.std,
        num_workers=reading.num_workers,
        on_broken=reading.on_broken,
        **options,
    )


def _decoder(framework: str) -> str:
    names = trainable_names()
    for name in [framework] if framework in names else filter(is_installed, names):
        return name
    raise MissingFrameworkError("images are decoded by PyTorch or MindSpore; run: pip install 'maam[torch]'")


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
    reading: Reading = Reading(),
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
    reading: Reading = Reading(),
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
