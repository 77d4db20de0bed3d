"""Which part of an image a network sees, and at which size: drawn here, carried out by a framework's own transforms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from maam.data.dataset import check_count, check_fraction, check_images, check_number
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


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_ATTEMPTS = 10


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Frame:
    """What is done to one image, in this order.

    Attributes:
        source: the part that is kept, in pixels of the image.
        size: height and width that the part is resized to, bilinear with antialiasing.
        crop: the part of that which is kept.
        flip: whether left and right are exchanged at the end.
    """

    source: Box
    size: tuple[int, int]
    crop: Box
    flip: bool = False


class Framing(Protocol):
    """Decides the frame of each image; frozen data classes that worker processes can be given."""

    @property
    def size(self) -> int:
        """Height and width of the result."""

    def frame(self, height: int, width: int, rng: np.random.Generator) -> Frame:
        """Return the frame of an image of `height` and `width`, drawn from `rng` where anything is random."""


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of the image, resized to a square, flipped at random: training on ImageNet.

    The draw is that of `torchvision.transforms.RandomResizedCrop` (Szegedy et al., arXiv 1409.4842): ten tries at an
    area and an aspect ratio, then the largest central part whose ratio is allowed.

    Attributes:
        size: height and width of the result.
        scale: least and largest share of the image's area, in (0, 1].
        ratio: least and largest width / height, drawn uniformly on a logarithmic scale.
        flip_probability: the probability of a horizontal flip, in [0, 1].

    Raises:
        DataError: an attribute is out of its range.
    """

    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_probability: float = 0.5

    def __post_init__(self) -> None:
        check_count("size", self.size, 1)
        _check_range("scale", self.scale, 1)
        _check_range("ratio", self.ratio, math.inf)
        check_fraction("flip_probability", self.flip_probability)

    def frame(self, height: int, width: int, rng: np.random.Generator) -> Frame:
        """Return a random frame of an image of `height` and `width`."""
        source = self._draw(height, width, rng)
        whole = Box(0, 0, self.size, self.size)
        return Frame(source, (self.size, self.size), whole, bool(rng.random() < self.flip_probability))

    def _draw(self, height: int, width: int, rng: np.random.Generator) -> Box:
        narrow, wide = (math.log(bound) for bound in self.ratio)
        for _ in range(_ATTEMPTS):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(narrow, wide))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return Box(int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w)
        return self._central(height, width)

    def _central(self, height: int, width: int) -> Box:
        least, largest = self.ratio
        h, w = height, width
        if width / height < least:
            h = max(round(width / least), 1)
        elif width / height > largest:
            w = max(round(height * largest), 1)
        return Box((height - h) // 2, (width - w) // 2, h, w)


@dataclass(frozen=True)
class CenterCrop:
    """The shorter side resized, then the central square: validation on ImageNet.

    Attributes:
        size: height and width of the result.
        resize: the length that the shorter side is given first, at least `size`.

    Raises:
        DataError: an attribute is out of its range.
    """

    size: int = 224
    resize: int = 256

    def __post_init__(self) -> None:
        check_count("size", self.size, 1)
        if check_count("resize", self.resize, 1) < self.size:
            raise DataError(f"resize is {self.resize}; expected at least size, {self.size}")

    def frame(self, height: int, width: int, rng: np.random.Generator) -> Frame:
        """Return the frame of an image of `height` and `width`; nothing is drawn from `rng`."""
        short = min(height, width)
        h, w = (self.resize * side // short for side in (height, width))
        crop = Box(round((h - self.size) / 2), round((w - self.size) / 2), self.size, self.size)
        return Frame(Box(0, 0, height, width), (h, w), crop)


def _check_range(name: str, value: tuple[float, float], largest: float) -> None:
    try:
        low, high = (check_number(bound) for bound in value)
    except (TypeError, ValueError):
        raise DataError(f"{name} is {value!r}; expected two numbers") from None
    if not 0 < low <= high <= largest or math.isinf(high):
        bound = "" if math.isinf(largest) else f" <= {largest}"
        raise DataError(f"{name} is {value!r}; expected 0 < least <= largest{bound}")
