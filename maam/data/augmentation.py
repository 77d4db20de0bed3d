"""Random crops and flips of images, and their scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from maam.data.checks import check_count, check_fraction, check_images
from maam.errors import DataError

GREY = 127


@dataclass(frozen=True, eq=False)
class Crops:
    """Where to crop each of N padded images, and which ones to flip after that.

    Attributes:
        offsets: int64 (N, 2), top and left of the crop in the padded image, 0..2 * padding.
        flips: bool (N,), whether left and right are exchanged.
        holes: float64 (N, 2), the centre of the square that is painted grey, as shares of height and width; None
            where there is none.
    """

    offsets: npt.NDArray[np.int64]
    flips: npt.NDArray[np.bool_]
    holes: npt.NDArray[np.float64] | None = None

    def part(self, start: int, stop: int, step: int = 1) -> Crops:
        """Return the crops of every `step`-th of the images `start` to `stop` - 1."""
        part = slice(start, stop, step)
        return Crops(self.offsets[part], self.flips[part], None if self.holes is None else self.holes[part])


@dataclass(frozen=True)
class Augmentation:
    """Pads images with zeros, crops them back to their size at random, flips some of them, and paints a square grey.

    Attributes:
        padding: rows and columns of zeros that are added on each side, 0 or more.
        flip_probability: the probability of a horizontal flip, in [0, 1].
        cutout: side of the square (DeVries and Taylor, arXiv 1708.04552); its centre may be anywhere in the image, so
            that part of it may lie outside. 0 for none.

    Raises:
        DataError: an attribute is out of its range.
    """

    padding: int = 4
    flip_probability: float = 0.5
    cutout: int = 0

    def __post_init__(self) -> None:
        check_count("padding", self.padding, 0)
        check_fraction("flip_probability", self.flip_probability)
        check_count("cutout", self.cutout, 0)

    def draw(self, rng: np.random.Generator, count: int) -> Crops:
        """Return crops for `count` images, 0 or more, drawn from `rng`."""
        check_count("count", count, 0)
        offsets = rng.integers(0, 2 * self.padding + 1, size=(count, 2), dtype=np.int64)
        flips = rng.random(count) < self.flip_probability
        return Crops(offsets, flips, rng.random((count, 2)) if self.cutout else None)

    def apply(self, images: npt.NDArray[np.uint8], crops: Crops) -> npt.NDArray[np.uint8]:
        """Return cropped and flipped copies of `images`.

        Args:
            images: uint8 (N, C, H, W).
            crops: of N images, drawn with the same padding.

        Returns:
            uint8 (N, C, H, W), contiguous.

        Raises:
            DataError: `images` has another dtype or rank, or `crops` does not fit to it.
        """
        check_images(images)
        self._check_crops(crops, len(images))
        padded = self._padded(images)
        height, width = images.shape[2:]
        windows = sliding_window_view(sliding_window_view(padded, height, axis=2), width, axis=3)
        top, left = crops.offsets.T
        cropped = windows[np.arange(len(images)), :, top, left]
        cropped[crops.flips] = cropped[crops.flips, :, :, ::-1]
        if crops.holes is not None:
            self._paint(cropped, crops.holes)
        return cropped

    def _padded(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """What np.pad gives, in a third of its time for a batch of small images."""
        count, channels, height, width = images.shape
        side = self.padding
        padded = np.zeros((count, channels, height + 2 * side, width + 2 * side), np.uint8)
        padded[:, :, side : side + height, side : side + width] = images
        return padded

    def _paint(self, images: npt.NDArray[np.uint8], holes: npt.NDArray[np.float64]) -> None:
        size = np.array(images.shape[2:])
        first = (holes * size).astype(np.int64) - self.cutout // 2  # (N, 2): top and left, perhaps outside
        corners = np.hstack([first, first + self.cutout]).clip(min=0)  # (N, 4)
        for image, (top, left, bottom, right) in zip(images, corners.tolist(), strict=True):
            image[:, top:bottom, left:right] = GREY

    def _check_crops(self, crops: Crops, count: int) -> None:
        if (crops.holes is None) != (self.cutout == 0) or (crops.holes is not None and crops.holes.shape != (count, 2)):
            found = "no holes" if crops.holes is None else f"holes {crops.holes.shape}"
            raise DataError(f"crops has {found}; expected {(count, 2) if self.cutout else 'none'}")
        if crops.offsets.shape != (count, 2) or crops.flips.shape != (count,):
            found = f"offsets {crops.offsets.shape} and flips {crops.flips.shape}"
            raise DataError(f"crops has {found}; expected {(count, 2)} and {(count,)}")
        if crops.offsets.dtype.kind not in "iu" or crops.flips.dtype != np.bool_:
            found = f"{crops.offsets.dtype} offsets and {crops.flips.dtype} flips"
            raise DataError(f"crops has {found}; expected integers and bool")
        if count and not (crops.offsets.min() >= 0 and crops.offsets.max() <= 2 * self.padding):
            found = f"{crops.offsets.min()}..{crops.offsets.max()}"
            raise DataError(f"crops has offsets in {found}; expected 0..{2 * self.padding}")


def to_float(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return `images`, uint8 of any shape, divided by 255: float32 of the same shape, in [0, 1].

    Raises:
        DataError: `images` is not a uint8 array.
    """
    dtype: Any = getattr(images, "dtype", type(images).__name__)
    if dtype != np.uint8:
        raise DataError(f"images is {dtype}; expected a uint8 array")
    floats = images.astype(np.float32)
    floats /= np.float32(255)
    return floats
