"""Batches of a data set in memory; a seed and the number of the epoch determine their order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from maam.data.checks import check_count, check_type
from maam.data.dataset import ImageDataset
from maam.data.transforms import Augmentation, Crops, to_float
from maam.errors import DataError

Share = tuple[int, int]
"""(rank, size): one process among `size` processes that share each batch."""
Rows = npt.NDArray[np.int64]
"""Indices of images (N,)."""
Batch = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]
"""Images (B, C, H, W) and labels (B,)."""


_FLIPS = (0, 1)
"""The part of the seed of alternating flips that differs from all seeds of epochs."""


class EpochOrder:
    """The order of the images in each epoch, cut into batches; seed and epoch give the same order in every process.

    Args:
        count: number of images, at least 1.
        name: name of the data set, for error messages.
        batch_size: images in a batch, over all processes, 1 or more. The last batch may be smaller.
        seed: seed of the order, 0 or more.
        shuffle: whether each epoch has its own random order. False: all epochs have the order of the data set.
        drop_last: whether to drop a last batch that is smaller than `batch_size`.
        share: (rank, size) of one process among several that share each batch. The process gets every size-th image of
            the batch, starting with image number rank. `batch_size` must be a multiple of size.

    Raises:
        DataError: an argument is out of its range, or an epoch would have no batch.
    """

    def __init__(
        self, count: int, name: str, batch_size: int, *, seed: int, shuffle: bool, drop_last: bool, share: Share
    ) -> None:
        self.count = count
        self.batch_size = check_count("batch_size", batch_size, 1)
        self.seed = check_count("seed", seed, 0)
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.rank, self.size = share
        if not 0 <= self.rank < self.size:
            raise DataError(f"share is {share}; expected (rank, size) with 0 <= rank < size")
        if self.batch_size % self.size:
            raise DataError(
                f"batch_size is {self.batch_size}, shared by {self.size} processes; expected a multiple of {self.size}"
            )
        if len(self) == 0:
            if count == 0:
                raise DataError(f"{name} has no images")
            raise DataError(f"batch_size is {self.batch_size}, and {name} has {count} images; expected at most {count}")

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        left_out = 0 if self.drop_last else self.batch_size - 1
        return (self.count + left_out) // self.batch_size

    def __iter__(self) -> NoReturn:
        raise DataError("each epoch has a different order; iterate over loader.epoch(0), then loader.epoch(1), ...")

    def draw(self, index: int) -> tuple[Rows, np.random.Generator]:
        """Return the order of the images in epoch `index`, (count,), and the generator that it was drawn from.

        Raises:
            DataError: `index` is not an integer of at least 0.
        """
        rng = np.random.default_rng([self.seed, check_count("index", index, 0)])
        return rng.permutation(self.count) if self.shuffle else np.arange(self.count), rng

    def parts(self, start: int) -> Iterator[slice]:
        """Yield the slice of the order that this process gets of each batch, from batch `start` on.

        Raises:
            DataError: `start` is not in 0..len(self). It is raised by the call, not by the iteration.
        """
        if check_count("start", start, 0) > len(self):
            raise DataError(f"start is {start}; expected 0..{len(self)}, the number of batches")
        firsts = range(start * self.batch_size, len(self) * self.batch_size, self.batch_size)
        parts = (slice(one + self.rank, min(one + self.batch_size, self.count), self.size) for one in firsts)
        return (part for part in parts if part.start < part.stop)  # the last batch may have fewer images than processes


class BatchLoader(EpochOrder):
    """Batches of an `ImageDataset`; the same seed and epoch always give the same bytes.

    Args:
        dataset: a data set with at least one image.
        batch_size: images in a batch, 1 or more. The last batch may be smaller.
        seed: seed of the order, the crops and the flips, 0 or more.
        shuffle: whether each epoch has its own random order. False: all epochs have the order of the data set.
        augmentation: random crops and flips; None leaves the images unchanged.
        drop_last: whether to drop a last batch that is smaller than `batch_size`.
        share: (rank, size) of one process among several that share each batch. The process gets every size-th image of
            the batch, starting with image number rank. `batch_size` must be a multiple of size.

    Raises:
        DataError: an argument is out of its range, or an epoch would have no batch.

    Example:
        >>> import numpy as np
        >>> from maam.data import Augmentation, BatchLoader, ImageDataset
        >>> dataset = ImageDataset(np.zeros((10, 3, 32, 32), np.uint8), np.arange(10) % 2)
        >>> loader = BatchLoader(dataset, 4, seed=0, augmentation=Augmentation())
        >>> [images.shape for images, labels in loader.epoch(0)]
        [(4, 3, 32, 32), (4, 3, 32, 32), (2, 3, 32, 32)]
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
            "dataset", dataset, ImageDataset, "for image files use ImageFolderBatches of maam.torch or maam.mindspore"
        )
        if augmentation is not None:
            check_type("augmentation", augmentation, Augmentation, "maam.data.Augmentation() returns one")
        super().__init__(
            len(dataset), "dataset", batch_size, seed=seed, shuffle=shuffle, drop_last=drop_last, share=share
        )
        self.dataset = dataset
        self.augmentation = augmentation

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        """Return an iterator over the batches of an epoch, from batch `start` on.

        Args:
            index: the number of the epoch, 0 or more.
            start: the first batch, 0..len(self). The images of earlier batches are not processed.

        Returns:
            An iterator over images float32 (B, C, H, W) in [0, 1] and labels int32 (B,).

        Raises:
            DataError: `index` or `start` is out of its range.
        """
        # The whole epoch is drawn first, so that a later start gives the same crops.
        order, rng = self.draw(index)
        crops = None if self.augmentation is None else self.augmentation.draw(rng, self.count)
        if crops is not None and self.augmentation is not None and self.augmentation.alternating_flip:
            first = np.random.default_rng([self.seed, *_FLIPS]).random(self.count) < self.augmentation.flip_probability
            crops = replace(crops, flips=(first ^ (index % 2 == 1))[order])
        return self._batches(order, crops, self.parts(start))

    def _batches(self, order: Rows, crops: Crops | None, parts: Iterator[slice]) -> Iterator[Batch]:
        for part in parts:
            rows = order[part]
            images = self.dataset.images[rows]
            if self.augmentation is not None and crops is not None:
                images = self.augmentation.apply(images, crops.part(part.start, part.stop, part.step))
            yield to_float(images), self.dataset.labels[rows]
