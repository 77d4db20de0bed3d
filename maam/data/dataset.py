"""A set of labelled images in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from maam.data.checks import check_images
from maam.errors import DataError

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
