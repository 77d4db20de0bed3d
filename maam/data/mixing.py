"""Mixup and CutMix: batches whose images and labels are mixed in pairs, drawn with NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from maam.data.checks import check_number
from maam.errors import DataError

Array = np.ndarray[Any, Any]
Images = npt.NDArray[np.float32]
Shares = npt.NDArray[np.float32]
"""The share of each class in each image (B, classes), with sums of 1."""
_TAG = 2
"""The part of the seed that differs from those of other draws."""


class Batches(Protocol):
    """Batches in an order that depends only on the seed and the epoch."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    def epoch(self, index: int, start: int = 0) -> Iterator[tuple[Array, Array]]:
        """Yield images float32 (B, C, H, W) and labels of an epoch, from batch `start` on.

        Labels are int32 (B,), or with mixup or CutMix the share of each class, float32 (B, classes).
        """


@dataclass(frozen=True)
class Mixing:
    """Mixup (Zhang et al., arXiv 1710.09412) and CutMix (Yun et al., arXiv 1905.04899).

    The share of an image is drawn from Beta(alpha, alpha), once for each batch. With both methods, each batch uses one
    of them, with equal probability.

    Attributes:
        mixup: alpha of mixup, which blends two images; 0 for no mixup.
        cutmix: alpha of CutMix, which replaces a rectangle by that of another image; 0 for no CutMix.

    Raises:
        DataError: an attribute is not a number of at least 0.

    Example:
        >>> import numpy as np
        >>> from maam.data import Mixing
        >>> images, labels = np.random.default_rng(0).random((4, 3, 8, 8), np.float32), np.array([0, 1, 2, 1])
        >>> mixed, shares = Mixing(mixup=0.2).apply(images, labels, 3, np.random.default_rng(1))
        >>> mixed.shape, shares.shape, shares.sum(1).tolist()
        ((4, 3, 8, 8), (4, 3), [1.0, 1.0, 1.0, 1.0])
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            try:
                fits = 0 <= check_number(value) < np.inf
            except (TypeError, ValueError):
                fits = False
            if not fits:
                raise DataError(f"{name} is {value!r}; expected a number of at least 0")

    def __bool__(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def apply(
        self, images: Images, labels: npt.NDArray[Any], classes: int, rng: np.random.Generator
    ) -> tuple[Images, Shares]:
        """Return a batch in which each image is mixed with another one of the batch.

        Args:
            images: float32 (B, C, H, W).
            labels: integers (B,).
            classes: the number of classes.
            rng: draws the method, the share and the pairs.

        Returns:
            Images float32 (B, C, H, W), and the share of each class, float32 (B, classes).
        """
        others = rng.permutation(len(images))
        if rng.random() < self._probability_of_mixup():
            share = np.float32(rng.beta(self.mixup, self.mixup))
            mixed = share * images + (1 - share) * images[others]
        else:
            mixed, share = _cut(images, others, rng.beta(self.cutmix, self.cutmix), rng)
        own = np.eye(classes, dtype=np.float32)[labels]
        return mixed, share * own + (1 - share) * own[others]

    def _probability_of_mixup(self) -> float:
        return 0.5 if self.mixup and self.cutmix else float(self.mixup > 0)


def _cut(
    images: Images, others: npt.NDArray[np.intp], share: float, rng: np.random.Generator
) -> tuple[Images, np.float32]:
    """Replace a rectangle of about 1 - `share` of the area; return the images and the share that is kept."""
    height, width = images.shape[2:]
    sides = np.array([height, width]) * np.sqrt(1 - share)
    center = rng.random(2) * (height, width)
    first = np.rint(center - sides / 2).astype(int).clip(0, (height, width))
    last = np.rint(center + sides / 2).astype(int).clip(0, (height, width))
    mixed = images.copy()
    inside = (..., slice(first[0], last[0]), slice(first[1], last[1]))
    mixed[inside] = images[others][inside]
    return mixed, np.float32(1 - np.prod(last - first) / (height * width))


class MixedBatches:
    """Batches of a loader, mixed; seed, epoch and batch determine the pairs.

    Args:
        batches: a loader.
        mixing: the methods.
        classes: the number of classes, at least 2.
        seed: the seed of the draws.
        rank: the number of this process, because each one mixes its own share of a batch.

    Raises:
        DataError: there is only one class.
    """

    def __init__(self, batches: Batches, mixing: Mixing, classes: int, *, seed: int = 0, rank: int = 0) -> None:
        if classes < 2:
            raise DataError("mixup and cutmix need labels of at least 2 classes; the data set has 1")
        self.batches, self.mixing, self.classes = batches, mixing, classes
        self.seed, self.rank = seed, rank

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.batches)

    def epoch(self, index: int, start: int = 0) -> Iterator[tuple[Images, Shares]]:
        """Yield images float32 (B, C, H, W) and shares float32 (B, classes), from batch `start` on."""
        for number, (images, labels) in enumerate(self.batches.epoch(index, start), start):
            rng = np.random.default_rng([self.seed, index, number, self.rank, _TAG])
            yield self.mixing.apply(images, labels, self.classes, rng)
