"""Which part of an image a network sees, and at which size: drawn here, carried out by a framework's own transforms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from maam.data.checks import check_count, check_fraction, check_number
from maam.errors import DataError

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
