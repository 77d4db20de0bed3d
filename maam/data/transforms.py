"""Random crops and flips for images in memory, and the part of an image file that a network sees.

All random values are drawn with NumPy, so that all frameworks use the same pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from maam.data.checks import check_choice, check_count, check_fraction, check_images, check_number
from maam.errors import DataError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
GRAY = 127
"""The value of the pixels in the square of cutout."""
_LONGEST = 16
"""The largest ratio of the sides of an image of which `CenterCrop` resizes more than the central part."""
_ATTEMPTS = 10
"""The number of draws of a random resized crop before the central crop is used, as in torchvision."""


def to_float(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Divide `images` by 255.

    Args:
        images: uint8 of any shape.

    Returns:
        float32 of the same shape, in [0, 1].

    Raises:
        DataError: `images` is not a uint8 array.

    Example:
        >>> import numpy as np
        >>> from maam.data import to_float
        >>> to_float(np.array([0, 51, 255], np.uint8)).tolist()
        [0.0, 0.20000000298023224, 1.0]
    """
    dtype: Any = getattr(images, "dtype", type(images).__name__)
    if dtype != np.uint8:
        raise DataError(f"images is {dtype}; expected a uint8 array")
    floats = images.astype(np.float32)
    floats /= np.float32(255)
    return floats


@dataclass(frozen=True, eq=False)
class Crops:
    """The crop, flip and cutout of each of N images, as `Augmentation.draw` returns them.

    Attributes:
        offsets: int64 (N, 2), top and left of the crop in the padded image, 0..2 * padding.
        flips: bool (N,), whether the image is flipped horizontally after the crop.
        holes: float64 (N, 2), the center of the gray square, as fractions of height and width; None without cutout.

    Example:
        >>> import numpy as np
        >>> from maam.data import Crops
        >>> crops = Crops(offsets=np.array([[0, 8], [4, 4]]), flips=np.array([True, False]))
        >>> crops.part(0, 1).offsets.tolist()
        [[0, 8]]
    """

    offsets: npt.NDArray[np.int64]
    flips: npt.NDArray[np.bool_]
    holes: npt.NDArray[np.float64] | None = None

    def part(self, start: int, stop: int, step: int = 1) -> Crops:
        """Return the crops of every `step`-th image from `start` to `stop` - 1."""
        part = slice(start, stop, step)
        return Crops(self.offsets[part], self.flips[part], None if self.holes is None else self.holes[part])


@dataclass(frozen=True)
class Augmentation:
    """Random crops of padded images, flips and cutout, for images in memory.

    Attributes:
        padding: rows and columns added on each side, 0 or more. A crop has the size of the original image.
        flip_probability: the probability of a horizontal flip, in [0, 1].
        cutout: the side of the gray square (DeVries and Taylor, arXiv 1708.04552); 0 for no square. Its center can be
            anywhere in the image, so a part of the square may lie outside.
        padding_mode: "zeros", or "reflect" for a mirror image that does not repeat the outermost pixels.
        alternating_flip: whether `BatchLoader` flips each image in every second epoch (Keller Jordan, arXiv 2404.00498)
            in place of at random. `flip_probability` is then the share of images that are flipped in the first epoch.

    Raises:
        DataError: an attribute is out of its range.

    Example:
        >>> import numpy as np
        >>> from maam.data import Augmentation
        >>> augmentation = Augmentation(padding=4, flip_probability=0.5)
        >>> images = np.full((2, 3, 32, 32), 255, np.uint8)
        >>> crops = augmentation.draw(np.random.default_rng(0), len(images))
        >>> augmentation.apply(images, crops).shape
        (2, 3, 32, 32)
    """

    padding: int = 4
    flip_probability: float = 0.5
    cutout: int = 0
    padding_mode: str = "zeros"
    alternating_flip: bool = False

    def __post_init__(self) -> None:
        check_count("padding", self.padding, 0)
        check_fraction("flip_probability", self.flip_probability)
        check_count("cutout", self.cutout, 0)
        check_choice("padding_mode", self.padding_mode, ("zeros", "reflect"))

    def draw(self, rng: np.random.Generator, count: int) -> Crops:
        """Draw crops for `count` images, 0 or more, from `rng`."""
        check_count("count", count, 0)
        offsets = rng.integers(0, 2 * self.padding + 1, size=(count, 2), dtype=np.int64)
        flips = rng.random(count) < self.flip_probability
        return Crops(offsets, flips, rng.random((count, 2)) if self.cutout else None)

    def apply(self, images: npt.NDArray[np.uint8], crops: Crops) -> npt.NDArray[np.uint8]:
        """Return cropped, flipped and painted copies of `images`.

        Args:
            images: uint8 (N, C, H, W).
            crops: N crops, drawn with the same padding.

        Returns:
            uint8 (N, C, H, W), contiguous.

        Raises:
            DataError: `images` has another dtype or rank, or `crops` does not match it.
        """
        check_images(images)
        self._check_crops(crops, len(images))
        padded = self._pad(images)
        height, width = images.shape[2:]
        windows = sliding_window_view(sliding_window_view(padded, height, axis=2), width, axis=3)
        top, left = crops.offsets.T
        cropped = windows[np.arange(len(images)), :, top, left]
        cropped[crops.flips] = cropped[crops.flips, :, :, ::-1]
        if crops.holes is not None:
            self._paint(cropped, crops.holes)
        return cropped

    def _pad(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Pad like np.pad, which takes three times as long for a batch of small images."""
        count, channels, height, width = images.shape
        side = self.padding
        if self.padding_mode == "reflect":
            if side >= min(height, width):
                raise DataError(f"padding is {side}, for images of {height}x{width}; expected less than the image")
            rows, columns = (np.pad(np.arange(size), side, mode="reflect") for size in (height, width))
            return images.take(rows, axis=2).take(columns, axis=3)
        padded = np.zeros((count, channels, height + 2 * side, width + 2 * side), np.uint8)
        padded[:, :, side : side + height, side : side + width] = images
        return padded

    def _paint(self, images: npt.NDArray[np.uint8], holes: npt.NDArray[np.float64]) -> None:
        size = np.array(images.shape[2:])
        first = (holes * size).astype(np.int64) - self.cutout // 2  # (N, 2): top and left, possibly negative
        corners = np.hstack([first, first + self.cutout]).clip(min=0)  # (N, 4)
        for image, (top, left, bottom, right) in zip(images, corners.tolist(), strict=True):
            image[:, top:bottom, left:right] = GRAY

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


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Frame:
    """The steps from an image file to the input of a network, in order of use.

    Attributes:
        source: the part of the image that is kept, in pixels.
        size: height and width after resizing that part, bilinear with antialiasing.
        crop: the part of the resized image that is kept.
        flip: whether the result is flipped horizontally.
    """

    source: Box
    size: tuple[int, int]
    crop: Box
    flip: bool = False


class Framing(Protocol):
    """A rule that gives each image its frame; must be picklable for worker processes."""

    @property
    def size(self) -> int:
        """Height and width of the result."""

    def frame(self, height: int, width: int, rng: np.random.Generator) -> Frame:
        """Return the frame of an image of `height` and `width`, with random values from `rng`."""


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of the image, resized to a square and flipped at random; usual for training on ImageNet.

    The crop is drawn like in `torchvision.transforms.RandomResizedCrop` (Szegedy et al., arXiv 1409.4842): ten
    attempts at an area and an aspect ratio, then the largest central part with an allowed ratio.

    Attributes:
        size: height and width of the result.
        scale: least and largest fraction of the image's area, in (0, 1].
        ratio: least and largest width / height, drawn uniformly on a logarithmic scale.
        flip_probability: the probability of a horizontal flip, in [0, 1].

    Raises:
        DataError: an attribute is out of its range.

    Example:
        >>> import numpy as np
        >>> from maam.data import RandomResizedCrop
        >>> frame = RandomResizedCrop(224).frame(375, 500, np.random.default_rng(0))
        >>> frame.size, frame.flip
        ((224, 224), False)
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
    """The central square of the image after resizing its shorter side; usual for validation on ImageNet.

    Of an image that is more than 16 times as long as it is wide, only the central part of that ratio is resized, so
    that the memory needed depends on `resize` alone.

    Attributes:
        size: height and width of the result.
        resize: the length of the shorter side before the crop, at least `size`.

    Raises:
        DataError: an attribute is out of its range.

    Example:
        >>> import numpy as np
        >>> from maam.data import CenterCrop
        >>> frame = CenterCrop(224, resize=256).frame(512, 1024, np.random.default_rng(0))
        >>> frame.size, tuple(frame.crop)
        ((256, 512), (16, 144, 224, 224))
    """

    size: int = 224
    resize: int = 256

    def __post_init__(self) -> None:
        check_count("size", self.size, 1)
        if check_count("resize", self.resize, 1) < self.size:
            raise DataError(f"resize is {self.resize}; expected at least size, {self.size}")

    def frame(self, height: int, width: int, rng: np.random.Generator) -> Frame:
        """Return the frame of an image of `height` and `width`; `rng` is not used."""
        short = min(height, width)
        sides = tuple(min(side, _LONGEST * short) for side in (height, width))
        source = Box((height - sides[0]) // 2, (width - sides[1]) // 2, *sides)
        h, w = (self.resize * side // short for side in sides)
        crop = Box(round((h - self.size) / 2), round((w - self.size) / 2), self.size, self.size)
        return Frame(source, (h, w), crop)


def _check_range(name: str, value: tuple[float, float], largest: float) -> None:
    try:
        low, high = (check_number(bound) for bound in value)
    except (TypeError, ValueError):
        raise DataError(f"{name} is {value!r}; expected two numbers") from None
    if not 0 < low <= high <= largest or math.isinf(high):
        bound = "" if math.isinf(largest) else f" <= {largest}"
        raise DataError(f"{name} is {value!r}; expected 0 < least <= largest{bound}")
