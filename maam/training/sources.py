"""The data of a recipe: batches to train on and batches to evaluate on, from memory or from image files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from maam import data
from maam.backend.registry import find_entry, is_installed, load_training_backend, trainable_names
from maam.data import ImageBatches, ImageFolder, imagefolder
from maam.data.image_batches import check_on_broken
from maam.data.mixing import Batches, MixedBatches
from maam.data.transforms import Framing
from maam.errors import DataError, MaamError, MissingFrameworkError, RecipeError, ShapeError, install_command
from maam.spec import Model, Node, input_rule, list_presets, preset, preset_options
from maam.training.recipe import IMAGE_FOLDER, Augmentation, DataName, Images, Recipe

Array = np.ndarray[Any, Any]
TEST_BATCH = 250
GRAY = np.array([0.299, 0.587, 0.114], np.float32)
"""The shares of red, green and blue in gray (ITU-R BT.601), as in Pillow."""
NO_AUGMENTATION = Augmentation(padding=0, flip_probability=0.0, cutout=0)


@dataclass(frozen=True)
class Source:
    """The data of a run.

    Attributes:
        train: training batches.
        test: batches to measure on, in the order of the data set: test images, or validation images that the recipe
            holds out.
        class_names: the name of each class.
        whole: the training batches of all processes together.
    """

    train: Batches
    test: Batches
    class_names: tuple[str, ...]
    whole: Batches

    @property
    def test_images(self) -> int:
        """The approximate number of test images: that of full batches."""
        return len(self.test) * TEST_BATCH

    def test_batches(self) -> Iterator[tuple[Array, Array]]:
        """Yield all test images, float32 (B, C, H, W), and labels, int32 (B,)."""
        return self.test.epoch(0)


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading image files. They do not change any pixel, so they are not part of the recipe.

    Attributes:
        framework: the framework whose data pipeline decodes; for "reference", the first one that is installed.
        num_workers: see `maam.data.ImageBatches`.
        on_broken: "error" or "skip"; see `maam.data.ImageBatches`.

    Raises:
        DataError: `on_broken` has another value.
    """

    framework: str = "torch"
    num_workers: int = 0
    on_broken: str = "error"

    def __post_init__(self) -> None:
        check_on_broken(self.on_broken)


def open_source(
    recipe: Recipe,
    root: Path | None,
    spec: Node,
    reading: ReadOptions = ReadOptions(),
    share: tuple[int, int] = (0, 1),
) -> Source:
    """Return the data of a recipe for a model.

    Args:
        recipe: names the data set.
        root: the folder of the data set.
        spec: the model.
        reading: how image files are read.
        share: (rank, size) of one process among several that share each batch.

    Raises:
        DataError: the data set is missing or broken, or has fewer images than a batch.
        RecipeError: the images or the number of classes do not fit the model, or the augmentation does not fit the
            images.
    """
    return (_open_folder if recipe.data == IMAGE_FOLDER else _open_memory)(recipe, root, spec, reading, share)


def _open_folder(recipe: Recipe, root: Path | None, spec: Node, reading: ReadOptions, share: tuple[int, int]) -> Source:
    crop, _ = recipe.images.framings(_image_size(spec))
    folder = _folder(root, "train", recipe.limit)
    _check_several(folder)
    files, everything = (
        _batches(folder, recipe.batch_size, crop, recipe.images, reading, share=part, seed=recipe.seed, drop_last=True)
        for part in (share, (0, 1))
    )
    validation = _validation_images(recipe.images, root, spec, reading, recipe.limit, share)
    _check_folder(spec, files)
    _check_shares(len(validation.dataset), share)
    return Source(_mixed(files, recipe, folder, share), validation, folder.class_names, everything)


def _open_memory(recipe: Recipe, root: Path | None, spec: Node, reading: ReadOptions, share: tuple[int, int]) -> Source:
    train = _dataset(recipe.data, root, "train", recipe.limit)
    if recipe.validation:
        train, test = _hold_out(train, recipe)
    else:
        test = _dataset(recipe.data, root, "test", recipe.limit)
    check_fit(spec, recipe.data, train.images.shape[1:], len(train.class_names))
    _check_augmentation(recipe, train.images.shape[2:])
    _check_shares(len(test), share)
    drawn = data.Augmentation(**recipe.augmentation.model_dump())
    augmentation = None if recipe.augmentation == NO_AUGMENTATION else drawn
    loader, everything = (
        data.BatchLoader(
            train, recipe.batch_size, seed=recipe.seed, augmentation=augmentation, drop_last=True, share=part
        )
        for part in (share, (0, 1))
    )
    checked = data.BatchLoader(test, TEST_BATCH * share[1], shuffle=False, share=share)
    return Source(_mixed(loader, recipe, train, share), checked, train.class_names, everything)


def _hold_out(train: data.ImageDataset, recipe: Recipe) -> tuple[data.ImageDataset, data.ImageDataset]:
    most = len(train) - recipe.batch_size
    if recipe.validation > most:
        raise RecipeError(
            f"validation: expected at most {max(most, 0):,}, so that a batch of {recipe.batch_size} is left of the "
            f"{len(train):,} training images, got {recipe.validation:,}"
        )
    return train.hold_out(recipe.validation)


def _mixed(
    batches: Batches, recipe: Recipe, dataset: data.ImageDataset | ImageFolder, share: tuple[int, int]
) -> Batches:
    """Return the training batches with the mixup and CutMix of the recipe."""
    mixing = data.Mixing(recipe.mixup, recipe.cutmix)
    if not mixing:
        return batches
    if len(np.unique(dataset.labels)) < 2:
        raise DataError(f"mixup and cutmix need labels of at least 2 classes; the images of {recipe.data} have 1")
    return MixedBatches(batches, mixing, len(dataset.class_names), seed=recipe.seed, rank=share[0])


def open_test(
    name: str,
    root: Path | None,
    spec: Node,
    limit: int | None = None,
    *,
    images: Images = Images(),  # noqa: B008
    reading: ReadOptions = ReadOptions(),
    class_names: Sequence[str] | None = None,
) -> Batches:
    """Return batches of the test images of a data set.

    Args:
        name: the name of the data set.
        root: the folder of the data set.
        spec: the model.
        limit: the number of images; None for all. A folder of image files yields evenly spaced ones, other data sets
            their first ones.
        images: how image files are cropped and normalized.
        reading: how image files are read.
        class_names: the class of each output of the model, for image files; None for the sorted class folders.

    Raises:
        DataError: the data set is missing or broken.
        RecipeError: the images or the number of classes do not fit the model.
    """
    if name == IMAGE_FOLDER:
        folder = _folder(root, "val", limit, class_names)
        size = images.size or _image_size(spec)
        check_fit(spec, name, (image_channels(spec), size, size), len(folder.class_names), training=False)
        return _central_crops(folder, images, spec, reading)
    test = _dataset(name, root, "test", limit)
    check_fit(spec, name, test.images.shape[1:], len(test.class_names), training=False)
    return data.BatchLoader(test, TEST_BATCH, shuffle=False)


def list_images(images: Images, files: tuple[str, ...], spec: Node, reading: ReadOptions) -> ImageBatches | GrayBatches:
    """Return batches of central crops of image files in their order; all labels are 0.

    Raises:
        DataError: there is no file.
        MissingFrameworkError: the framework that decodes is not installed.
    """
    if not files:
        raise DataError("files: expected image files, or folders with files that end in .jpg, .png, ..., got none")
    folder = ImageFolder(Path(), files, np.zeros(len(files), np.int32), ("",))
    return _central_crops(folder, images, spec, reading)


class GrayBatches:
    """Batches of image files for a model with one channel: gray values instead of red, green and blue.

    Gray is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), of the pixels as well as of mean and standard deviation.

    Args:
        batches: the batches, with pixels in [0, 1] that are not normalized.
        images: mean and standard deviation of the three channels.

    Attributes:
        broken: see `maam.data.ImageBatches`.
    """

    def __init__(self, batches: ImageBatches, images: Images) -> None:
        self.broken = batches.broken
        self._batches = batches
        self._mean, self._std = (
            np.float32(GRAY @ np.array(values, np.float32)) for values in (images.mean, images.std)
        )

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._batches)

    def epoch(self, index: int, start: int = 0) -> Iterator[tuple[Array, Array]]:
        """Yield images float32 (B, 1, H, W) and labels int32 (B,)."""
        for images, labels in self._batches.epoch(index, start):
            gray = np.tensordot(images, GRAY, (1, 0))[:, None]  # (B, 1, H, W)
            yield (gray - self._mean) / self._std, labels


def _central_crops(folder: ImageFolder, images: Images, spec: Node, reading: ReadOptions) -> ImageBatches | GrayBatches:
    crop = images.framings(_image_size(spec))[1]
    if image_channels(spec) != 1:
        return _batches(folder, TEST_BATCH, crop, images, reading, shuffle=False)
    plain = images.model_copy(update={"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)})
    return GrayBatches(_batches(folder, TEST_BATCH, crop, plain, reading, shuffle=False), images)


def _dataset(name: str, root: Path | None, split: str, limit: int | None = None) -> data.ImageDataset:
    """Return a data set in memory, or its first `limit` images."""
    found = read_dataset(name, root, split)
    return found if limit is None else found.subset(range(min(limit, len(found))))


def read_dataset(name: str, root: Path | None, split: str) -> data.ImageDataset:
    """Return a data set in memory, of the folder that `maam data` wrote; the digits need none.

    Raises:
        DataError: there is no such data set, it is incomplete, or `root` is missing.
    """
    if name == "digits":
        return data.digits(split)
    if name not in ("cifar10", "cifar100"):
        raise DataError(f"data: expected one of {', '.join(get_args(DataName))}, got {name!r}")
    if root is None:
        raise DataError(f"data {name} needs root (--root DIR), the folder that `maam data {name} DIR` wrote")
    return getattr(data, name)(root, split)


def _validation_images(
    images: Images, root: Path | None, spec: Node, reading: ReadOptions, limit: int | None, share: tuple[int, int]
) -> ImageBatches:
    folder = _folder(root, "val", limit)
    crop = images.framings(_image_size(spec))[1]
    return _batches(folder, TEST_BATCH * share[1], crop, images, reading, shuffle=False, share=share)


def _folder(
    root: Path | None, split: str, limit: int | None = None, class_names: Sequence[str] | None = None
) -> ImageFolder:
    """Return a folder of image files, or `limit` evenly spaced ones."""
    if root is None:
        raise DataError("data imagefolder needs root (--root DIR), the folder that contains train and val")
    found = imagefolder(root, split, class_names)
    return found if limit is None else found.spread(limit)


def _check_several(folder: ImageFolder) -> None:
    """Raise `DataError` if there is nothing to distinguish, often because `root` is one level too high."""
    if len(folder.class_names) == 1:
        only = folder.folder / folder.class_names[0]
        raise DataError(
            f"{folder.folder}: only one class folder, {only.name!r}; expected at least two; add another class, or move "
            f"the folders in {only} up if these are the classes"
        )


def _image_size(spec: Node) -> int:
    """Return the height of a model's images."""
    if not isinstance(spec, Model):
        raise DataError("data imagefolder needs a whole model, because its spec determines the size of the images")
    return spec.input_shape[1]


def image_channels(spec: Node) -> int:
    """Return the number of channels of image files for a model: 1 for a model with one channel, else 3."""
    return 1 if isinstance(spec, Model) and spec.input_shape[0] == 1 else 3


def _batches(
    folder: ImageFolder, batch_size: int, framing: Framing, images: Images, reading: ReadOptions, **options: Any
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
    """Return the framework that decodes image files for `framework`."""
    names = trainable_names()
    for name in [framework] if framework in names else filter(is_installed, names):
        return name
    decoders = [find_entry(name) for name in names]
    titles = " or ".join(entry.title for entry in decoders)
    raise MissingFrameworkError(f"image files are decoded by {titles}; run: {install_command(decoders[0].extra)}")


def check_fit(spec: Node, name: str, image_shape: tuple[int, ...], classes: int, *, training: bool = True) -> None:
    """Check that a model takes images of the shape (C, H, W) and has as many outputs as the data set has classes.

    Args:
        spec: the model.
        name: the name of the data set, for messages.
        image_shape: the shape of an image.
        classes: the number of classes of the data set.
        training: whether the model can still be changed, for the advice.

    Raises:
        RecipeError: the images or the number of classes do not fit; the message says what to change.
    """
    rule = input_rule(spec)
    if not rule.accepts((1, *image_shape)):
        advice = _advice(spec, image_shape) if training else "choose other data, or a model for such images"
        raise RecipeError(
            f"data {name} has images of {'x'.join(map(str, image_shape))} (channels, height, width), but the model "
            f"takes {rule.describe()}; {advice}"
        )
    try:
        output = spec.output_shape(image_shape)
    except ShapeError as error:
        raise RecipeError(f"data {name}: {error}") from None
    if output != (classes,):
        advice = f"override num_classes in the recipe (-o overrides.num_classes={classes})"
        if not training:
            advice = "choose other data, or a model for these classes"
            if name == IMAGE_FOLDER:
                advice = "give the folder of its run, or the name of the class of each output (--classes)"
        raise RecipeError(f"data {name} has {classes} classes, but the model has outputs {output}; {advice}")


def _advice(spec: Node, image_shape: tuple[int, ...]) -> str:
    """Return the overrides of the preset with which it takes images of the shape (C, H, W)."""
    changes = {}
    if isinstance(spec, Model) and spec.name in list_presets():
        wanted = {"in_channels": image_shape[0], "image_size": image_shape[1]}
        changes = {option: value for option, value in wanted.items() if option in preset_options(spec.name)}
    with contextlib.suppress(MaamError):
        if changes and input_rule(preset(spec.name, **changes)).accepts((1, *image_shape)):  # type: ignore[attr-defined]
            texts = " ".join(f"-o overrides.{option}={value}" for option, value in changes.items())
            return f"override the options of the preset ({texts}), or choose a preset for such images"
    return "choose a preset for such images"


def _check_folder(spec: Node, batches: ImageBatches) -> None:
    size = batches.work.framing.size
    check_fit(spec, IMAGE_FOLDER, (3, size, size), len(batches.dataset.class_names))


def _check_shares(images: int, share: tuple[int, int]) -> None:
    if images < share[1]:
        raise DataError(f"{images} images to evaluate on, but {share[1]} processes; start fewer processes")


def _check_augmentation(recipe: Recipe, size: tuple[int, ...]) -> None:
    """Check that augmentation leaves a part of an image of `size` (H, W)."""
    side, found = min(size), recipe.augmentation
    for field, value, most in (("padding", found.padding, side - 1), ("cutout", found.cutout, side)):
        if value > most:
            raise RecipeError(
                f"augmentation.{field}: {value}, but data {recipe.data} has images of {size[0]}x{size[1]}; "
                f"expected at most {most}: -o augmentation.{field}={most // 4}"
            )
