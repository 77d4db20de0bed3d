"""Labeled images in memory, and the digits of scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from maam.data.checks import check_choice, check_count, check_fraction, check_images
from maam.errors import DataError, require

_MAX_NUMBERED_CLASSES = 100_000
"""Labels above this are probably identifiers, not class numbers, so classes are not named by counting."""
_BRIGHTEST_DIGIT_PIXEL = 16


# Arrays have no single truth value, so a generated __eq__ would raise; datasets compare by identity.
@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labeled images of one size, in memory.

    Attributes:
        images: uint8 (N, C, H, W), 0..255.
        labels: int32 (N,), 0..len(class_names) - 1. Other integer types are cast.
        class_names: one name for each label. Default: "class 0", "class 1", ... up to the largest label.

    Raises:
        DataError: an array has the wrong dtype or rank, the counts differ, or a label has no name.

    Example:
        >>> import numpy as np
        >>> from maam.data import ImageDataset
        >>> images = np.zeros((4, 3, 8, 8), np.uint8)
        >>> dataset = ImageDataset(images, np.array([0, 1, 1, 0]), ("cat", "dog"))
        >>> len(dataset), dataset.subset([1, 2]).labels.tolist()
        (4, [1, 1])
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_images(self.images)
        if isinstance(self.labels, np.ndarray) and self.labels.dtype.kind in "iu" and self.labels.ndim == 1:
            self._set_names_and_cast_labels()
        _check_labels(self.labels, len(self.images), len(self.class_names))

    def _set_names_and_cast_labels(self) -> None:
        names = self.class_names
        if isinstance(names, (str, Mapping)):
            raise DataError(
                f"class_names is a {type(names).__name__}; expected a sequence of names, one for each class"
            )
        if not len(names) and len(self.labels) and self.labels.min() >= 0:
            if (largest := int(self.labels.max())) >= _MAX_NUMBERED_CLASSES:
                raise DataError(
                    f"labels reach {largest}; expected 0..classes - 1; pass class_names to use "
                    f"{_MAX_NUMBERED_CLASSES} classes or more"
                )
            names = tuple(f"class {index}" for index in range(largest + 1))
        object.__setattr__(self, "class_names", tuple(names))
        if len(self.labels) and self.labels.min() >= 0 and self.labels.max() < len(names):
            object.__setattr__(self, "labels", self.labels.astype(np.int32, copy=False))

    def __len__(self) -> int:
        """Return the number of images, N."""
        return len(self.images)

    def subset(self, indices: Sequence[int] | npt.NDArray[np.integer[Any]]) -> ImageDataset:
        """Return a copy of the images and labels at `indices`, in that order.

        Args:
            indices: integers (K,), 0..N - 1. An index may occur several times.

        Returns:
            K images with their labels, and all class names.

        Raises:
            DataError: `indices` is not a row of integers, or an index is not in 0..N - 1.
        """
        rows = np.asarray(indices)
        if rows.size == 0:
            rows = rows.astype(np.intp)
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise DataError(f"indices is {rows.dtype} {rows.shape}; expected integers (K,)")
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
            raise DataError(f"indices lie in {rows.min()}..{rows.max()}; expected 0..{len(self) - 1}")
        return ImageDataset(self.images[rows], self.labels[rows], self.class_names)

    def hold_out(self, count: int, seed: int = 0) -> tuple[ImageDataset, ImageDataset]:
        """Divide the images at random into those to train on and those to validate on, each class in proportion.

        Args:
            count: the number of images to validate on, 1..N - 1.
            seed: determines the images.

        Returns:
            N - count images, and `count` images, each in their previous order.

        Raises:
            DataError: `count` is out of range.

        Example:
            >>> from maam import data
            >>> rest, held_out = data.digits("train").hold_out(200)
            >>> len(rest), len(held_out)
            (1238, 200)
        """
        if not 0 < count < len(self):
            raise DataError(f"count: expected 1 to {len(self) - 1} of the {len(self)} images, got {count}")
        order = np.random.default_rng(seed).permutation(len(self))
        order = order[np.argsort(self.labels[order], kind="stable")]  # by class, in random order in each
        held_out = np.zeros(len(self), bool)
        held_out[order[np.arange(count) * len(self) // count]] = True
        return self.subset(np.flatnonzero(~held_out)), self.subset(np.flatnonzero(held_out))


def digits(split: str = "train", test_fraction: float = 0.2, seed: int = 0) -> ImageDataset:
    """Return one split of the 1,797 digits in scikit-learn; this reads no file and needs no network.

    Args:
        split: "train" or "test".
        test_fraction: the fraction of each class in the test split, in (0, 1).
        seed: selects the images of the test split, 0 or more.

    Returns:
        Images uint8 (N, 1, 8, 8), 0..255, in the order of scikit-learn, with the class names "0" to "9".

    Raises:
        DataError: an argument is out of its range, or a class would have no image in one split.
        MissingFrameworkError: scikit-learn is not installed.

    Example:
        >>> from maam.data import digits
        >>> train, test = digits("train"), digits("test")
        >>> train.images.shape, test.images.shape
        ((1438, 1, 8, 8), (359, 1, 8, 8))
    """
    check_choice("split", split, ("train", "test"))
    check_fraction("test_fraction", test_fraction)
    check_count("seed", seed, 0)
    require("sklearn", "train")
    from sklearn.datasets import load_digits

    content = load_digits()
    images = np.rint(content.images * 255 / _BRIGHTEST_DIGIT_PIXEL).astype(np.uint8)[:, np.newaxis]
    whole = ImageDataset(images, content.target.astype(np.int32), tuple(map(str, range(10))))
    is_test = _draw_test(whole.labels, test_fraction, seed)
    return whole.subset(np.flatnonzero(is_test if split == "test" else ~is_test))


def _check_labels(labels: Any, count: int, classes: int) -> None:
    """Raise `DataError` unless `labels` is int32 (count,) with values in 0..classes - 1."""
    if not isinstance(labels, np.ndarray):
        raise DataError(f"labels is a {type(labels).__name__}; expected an int32 numpy array (N,)")
    if labels.dtype != np.int32 or labels.ndim != 1:
        raise DataError(f"labels is {labels.dtype} {labels.shape}; expected int32 (N,)")
    if len(labels) != count:
        raise DataError(f"there are {len(labels)} labels for {count} images; expected one label for each image")
    if count and not (labels.min() >= 0 and labels.max() < classes):
        raise DataError(f"labels lie in {labels.min()}..{labels.max()}; expected 0..{classes - 1}")


def _draw_test(labels: npt.NDArray[np.int32], fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return bool (N,): whether each image is in the test split, with the same fraction of each class."""
    rng = np.random.default_rng(seed)
    is_test = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        count = round(fraction * len(rows))
        if not 0 < count < len(rows):
            raise DataError(
                f"test_fraction is {fraction}; expected a fraction that leaves images of each class in both splits"
            )
        is_test[rows[:count]] = True
    return is_test
