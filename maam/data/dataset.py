"""A set of labelled images in memory."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from maam.errors import DataError, require

Share = tuple[int, int]


def check_count(name: str, value: Any, minimum: int) -> int:
    """Return `value` as an int; raise `DataError` unless it is an integer of at least `minimum`."""
    try:
        number = operator.index(_no_bool(value))
    except TypeError:
        raise DataError(f"{name} is {value!r}; expected an integer of at least {minimum}") from None
    if number < minimum:
        raise DataError(f"{name} is {number}; expected an integer of at least {minimum}")
    return number


def check_number(value: Any) -> float:
    """Return `value` as a float; raise `TypeError` or `ValueError` unless it is a number: neither text nor a bool."""
    if isinstance(value, (str, bytes)):
        raise TypeError
    return float(_no_bool(value))


def _no_bool(value: Any) -> Any:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError
    return value


def check_type(name: str, value: object, expected: type, hint: str) -> None:
    """Raise `DataError` unless `value` is an `expected`."""
    if not isinstance(value, expected):
        raise DataError(f"{name}: expected a maam.data.{expected.__name__}, got a {type(value).__name__}; {hint}")


def check_share(share: Share, batch_size: int) -> Share:
    """Return `share`; raise `DataError` unless it is a rank and a number of processes that divides the batch."""
    rank, size = share
    if not 0 <= rank < size:
        raise DataError(f"share is {share}; expected a rank and the number of processes above it")
    if batch_size % size:
        raise DataError(f"batch_size {batch_size} is that of all {size} processes; choose a multiple of {size}")
    return share


def check_fraction(name: str, value: Any) -> float:
    """Return `value` as a float; raise `DataError` unless it is a number in [0, 1]."""
    try:
        number = check_number(value)
    except (TypeError, ValueError):
        raise DataError(f"{name} is {value!r}; expected a number in [0, 1]") from None
    if not 0 <= number <= 1:
        raise DataError(f"{name} is {number}; expected a number in [0, 1]")
    return number


def check_images(images: Any) -> None:
    """Raise `DataError` unless `images` is a uint8 array (N, C, H, W) with C, H and W of at least 1."""
    if not isinstance(images, np.ndarray):
        raise DataError(f"images is a {type(images).__name__}; expected a uint8 numpy array (N, C, H, W)")
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape[1:]:
        raise DataError(f"images is {images.dtype} {images.shape}; expected uint8 (N, C, H, W)")
    _, channels, height, width = images.shape
    if width in (1, 3) and min(channels, height) > 4:
        raise DataError(
            f"images is {images.shape}, which looks like (N, H, W, C); "
            "expected (N, C, H, W): images.transpose(0, 3, 1, 2)"
        )


_MOST_CLASSES = 100_000
"""More are not named by counting: such labels are rather identifiers that were not mapped to 0, 1, 2, ..."""


# Arrays have no single truth value, so the generated == would raise: sets compare by identity.
@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labelled images of one size.

    Attributes:
        images: uint8 (N, C, H, W), 0..255.
        labels: int32 (N,), 0..len(class_names) - 1; other integers are cast.
        class_names: the name of each label; "class 0", "class 1", ... up to the largest label where none are given.

    Raises:
        DataError: an array has another dtype or rank, the counts differ, or a label has no name.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int32]
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_images(self.images)
        if isinstance(self.labels, np.ndarray) and self.labels.dtype.kind in "iu" and self.labels.ndim == 1:
            self._name_classes()
        _check_labels(self.labels, len(self.images), len(self.class_names))

    def _name_classes(self) -> None:
        """Integers as int32 where they fit, and names as a tuple."""
        names = self.class_names
        if isinstance(names, (str, Mapping)):
            raise DataError(
                f"class_names is a {type(names).__name__}; expected a sequence of names, one for each class"
            )
        if not len(names) and len(self.labels) and self.labels.min() >= 0:
            if (largest := int(self.labels.max())) >= _MOST_CLASSES:
                raise DataError(
                    f"labels reach {largest}; expected 0..classes - 1, and class_names where there are {_MOST_CLASSES} "
                    "classes or more"
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
            indices: integers (K,), 0..N - 1; an index may be repeated.

        Returns:
            K images with their labels, and all class names.

        Raises:
            DataError: `indices` is not one row of integers, or an index is not in 0..N - 1.
        """
        rows = np.asarray(indices)
        if rows.size == 0:
            rows = rows.astype(np.intp)
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            raise DataError(f"indices is {rows.dtype} {rows.shape}; expected integers (K,)")
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
            raise DataError(f"indices lie in {rows.min()}..{rows.max()}; expected 0..{len(self) - 1}")
        return ImageDataset(self.images[rows], self.labels[rows], self.class_names)


def _check_labels(labels: Any, count: int, classes: int) -> None:
    """Raise `DataError` unless `labels` is int32 (count,) with values in 0..classes - 1."""
    if not isinstance(labels, np.ndarray):
        raise DataError(f"labels is a {type(labels).__name__}; expected an int32 numpy array (N,)")
    if labels.dtype != np.int32 or labels.ndim != 1:
        raise DataError(f"labels is {labels.dtype} {labels.shape}; expected int32 (N,)")
    if len(labels) != count:
        raise DataError(f"there are {len(labels)} labels for {count} images; expected one label an image")
    if count and not (labels.min() >= 0 and labels.max() < classes):
        raise DataError(f"labels lie in {labels.min()}..{labels.max()}; expected 0..{classes - 1}")


_BRIGHTEST = 16


def digits(split: str = "train", test_fraction: float = 0.2, seed: int = 0) -> ImageDataset:
    """Return a split of scikit-learn's 1,797 digits; no file and no network is needed.

    Args:
        split: "train" or "test".
        test_fraction: the share of each class that goes to the test split, in (0, 1).
        seed: chooses which images these are, 0 or more.

    Returns:
        Images uint8 (N, 1, 8, 8), 0..255, in scikit-learn's order, with the class names "0" to "9".

    Raises:
        DataError: an argument is out of its range, or leaves a class without an image.
        MissingFrameworkError: scikit-learn is not installed.
    """
    if split not in ("train", "test"):
        raise DataError(f"split is {split!r}; expected 'train' or 'test'")
    check_fraction("test_fraction", test_fraction)
    check_count("seed", seed, 0)
    require("sklearn", "train")
    from sklearn.datasets import load_digits

    content = load_digits()
    images = np.rint(content.images * 255 / _BRIGHTEST).astype(np.uint8)[:, np.newaxis]
    whole = ImageDataset(images, content.target.astype(np.int32), tuple(map(str, range(10))))
    is_test = _draw_test(whole.labels, test_fraction, seed)
    return whole.subset(np.flatnonzero(is_test if split == "test" else ~is_test))


def _draw_test(labels: npt.NDArray[np.int32], fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return bool (N,): whether an image goes to the test split, for the same share of each class."""
    rng = np.random.default_rng(seed)
    is_test = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        count = round(fraction * len(rows))
        if not 0 < count < len(rows):
            expected = "a share that gives each split images of each class"
            raise DataError(f"test_fraction is {fraction}; expected {expected}")
        is_test[rows[:count]] = True
    return is_test
