"""Batches of a data set, in an order that a seed and an epoch decide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from maam.data.dataset import ImageDataset, Share, check_count, check_share, check_type
from maam.data.transforms import Augmentation, Crops, to_float
from maam.errors import DataError

Rows = npt.NDArray[np.int64]


class EpochOrder:
    """The order of each epoch and its cut into batches: a function of seed and epoch, the same in every process.

    Args:
        count: images, at least one.
        name: of the data set, for messages.
        batch_size: images in a batch of all processes, 1 or more; the last batch may be smaller.
        seed: decides the order, 0 or more.
        shuffle: whether each epoch has its own random order, or all have the order of the data set.
        drop_last: whether a last batch that is smaller than `batch_size` is left out.
        share: (rank, size) of a process among several that share each batch: it gets every size-th image, from the
            rank-th on. `batch_size` is a multiple of size.

    Raises:
        DataError: an argument is out of its range, or there would be no batch.
    """

    def __init__(
        self, count: int, name: str, batch_size: int, *, seed: int, shuffle: bool, drop_last: bool, share: Share
    ) -> None:
        self.count = count
        self.batch_size = check_count("batch_size", batch_size, 1)
        self.seed = check_count("seed", seed, 0)
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.rank, self.size = check_share(share, self.batch_size)
        if len(self) == 0:
            if count == 0:
                raise DataError(f"{name} has no images")
            raise DataError(f"batch_size is {self.batch_size}, and {name} has {count} images; expected at most {count}")

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        left_out = 0 if self.drop_last else self.batch_size - 1
        return (self.count + left_out) // self.batch_size

    def draw(self, index: int) -> tuple[Rows, np.random.Generator]:
        """Return the rows (count,) in the order of epoch `index`, and the generator that they were drawn from.

        Raises:
            DataError: `index` is no integer of at least 0.
        """
        rng = np.random.default_rng([self.seed, check_count("index", index, 0)])
        return rng.permutation(self.count) if self.shuffle else np.arange(self.count), rng

    def __iter__(self) -> NoReturn:
        raise DataError("the order differs from epoch to epoch: iterate over .epoch(0), then over .epoch(1), ...")

    def parts(self, start: int) -> Iterator[slice]:
        """Yield where in the order this process's images of each batch stand, from batch `start` on.

        Raises:
            DataError: `start` is not in 0..len(self); at once.
        """
        if check_count("start", start, 0) > len(self):
            raise DataError(f"start is {start}; expected 0..{len(self)}, the number of batches")
        firsts = range(start * self.batch_size, len(self) * self.batch_size, self.batch_size)
        parts = (slice(one + self.rank, min(one + self.batch_size, self.count), self.size) for one in firsts)
        return (
            part for part in parts if part.start < part.stop
        )  # a last batch may be smaller than there are processes


Batch = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]


class BatchLoader(EpochOrder):
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
        check_type(
            "dataset", dataset, ImageDataset, "for image files: maam.torch.ImageFolderBatches, or maam.mindspore's"
        )
        if augmentation is not None:
            check_type("augmentation", augmentation, Augmentation, "maam.data.Augmentation() draws crops and flips")
        super().__init__(
            len(dataset), "dataset", batch_size, seed=seed, shuffle=shuffle, drop_last=drop_last, share=share
        )
        self.dataset = dataset
        self.augmentation = augmentation

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
        # All draws of the epoch come first, so that a later start finds the same ones.
        order, rng = self.draw(index)
        crops = None if self.augmentation is None else self.augmentation.draw(rng, self.count)
        return self._batches(order, crops, self.parts(start))

    def _batches(self, order: Rows, crops: Crops | None, parts: Iterator[slice]) -> Iterator[Batch]:
        for part in parts:
            rows = order[part]
            images = self.dataset.images[rows]
            if self.augmentation is not None and crops is not None:
                images = self.augmentation.apply(images, crops.part(part.start, part.stop, part.step))
            yield to_float(images), self.dataset.labels[rows]
