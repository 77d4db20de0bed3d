"""Image folders as the data of a recipe: the framework's own pipeline decodes them."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maam.data import ImageBatches, ImageFolder, imagefolder
from maam.data.framing import Framing
from maam.data.image_batches import check_on_broken
from maam.errors import DataError, MissingFrameworkError
from maam.spec import Model, Node
from maam.training.recipe import Images, Recipe
from maam.training.rooms import FRAMEWORKS

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
    batches: type[ImageBatches] = importlib.import_module(f"maam.{_decoder(reading.framework)}").ImageFolderBatches
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
    if framework in FRAMEWORKS:
        return framework
    for name in FRAMEWORKS:
        if importlib.util.find_spec(name) is not None:
            return name
    raise MissingFrameworkError("images are decoded by PyTorch or MindSpore; run: pip install 'maam[torch]'")
