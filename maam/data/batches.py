"""Batches of a data set, in an order that a seed and an epoch decide."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from maam.data.augmentation import Augmentation, Crops, to_float
from maam.data.checks import Share, check_count, check_share
from maam.data.dataset import ImageDataset
from maam.errors import DataError

Batch = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]


class BatchLoader:
    """Yields the batches of an epoch; the same seed and epoch always give the same bytes.

    Args:
        dataset: at least one image.
        batch_size: images in a batch, 1 or more; the last batch may be smaller.
        seed: decides order, crops and flips, 0 or more.
        shuffle: whether each epoch has its own random order, or all have the order of the data set.
        augmentation: draws and applies crops and flips; without it images stay as they are.
        drop_last: whether a last batch that is smaller than `batch_size` is left out.
        share: (rank, size) of a process among several that share each batch: it gets every size-th image, from the
            rank-th on. `batch_size` is that of all, and a multiple of size.

    Raises:
        DataError: an argument is out of its range, or there would be no batch.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        augmentation: Augmentation | None = None,
        drop_last: bool = False,
        share: Share = (0, 1),
    ) -> None:
        self.dataset = dataset
        self.batch_size = check_count("batch_size", batch_size, 1)
        self.seed = check_count("seed", seed, 0)
        self.shuffle = shuffle
        self.augmentation = augmentation
        self.drop_last = drop_last
        self.rank, self.size = check_share(share, self.batch_size)
        if len(self) == 0:
            needed = self.batch_size if drop_last else 1
            raise DataError(f"dataset has {len(dataset)} images; expected at least {needed} to make a batch")

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        left_out = 0 if self.drop_last else self.batch_size - 1
        return (len(self.dataset) + left_out) // self.batch_size

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from batch `start` on.

        Args:
            index: the number of the epoch, 0 or more.
            start: the first batch to yield, 0..len(self); the batches before it cost no work on images.

        Returns:
            An iterator over images float32 (B, C, H, W) in [0, 1] and labels int32 (B,).

        Raises:
            DataError: `index` or `start` is out of its range.
        """
        check_count("index", index, 0)
        if check_count("start", start, 0) > len(self):
            raise DataError(f"start is {start}; expected 0..{len(self)}, the number of batches")
        # All draws of the epoch come first, so that a later start finds the same ones.
        rng = np.random.default_rng([self.seed, index])
        count = len(self.dataset)
        order = rng.permutation(count) if self.shuffle else np.arange(count)
        crops = None if self.augmentation is None else self.augmentation.draw(rng, count)
        return self._batches(order, crops, start)

    def _batches(self, order: npt.NDArray[np.int64], crops: Crops | None, start: int) -> Iterator[Batch]:
        for first in range(start * self.batch_size, len(self) * self.batch_size, self.batch_size):
            part = slice(first + self.rank, min(first + self.batch_size, len(order)), self.size)
            rows = order[part]
            if len(rows) == 0:  # the last batch is smaller than there are processes
                return
            images = self.dataset.images[rows]
            if self.augmentation is not None and crops is not None:
                images = self.augmentation.apply(images, crops.part(part.start, part.stop, part.step))
            yield to_float(images), self.dataset.labels[rows]
