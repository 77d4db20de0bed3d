"""Batches of a data set, in an order that a seed and an epoch decide."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from maam.data.augmentation import Augmentation, Crops, to_float
from maam.data.checks import Share, check_type
from maam.data.dataset import ImageDataset
from maam.data.order import EpochOrder, Rows

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
