"""maam's seeded batches as a data set of PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from maam.data import BatchLoader
from maam.data.batches import Batch
from maam.data.checks import check_count

Tensors = tuple[Tensor, Tensor]


class Batches(IterableDataset[Tensors]):
    """What `iterable_dataset` returns; `len` is the number of batches in an epoch."""

    def __init__(self, loader: BatchLoader, epoch: int = 0) -> None:
        self.loader = loader
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # persistent workers see it change
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose what the next pass yields. Raises DataError where `epoch` is no integer of at least 0."""
        self._epoch.fill_(check_count("epoch", epoch, 0))

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Tensors]:
        epoch, worker = int(self._epoch), get_worker_info()
        if worker is None:
            return (_tensors(batch) for batch in self.loader.epoch(epoch))
        turns = range(worker.id, len(self), worker.num_workers)
        return (_tensors(next(self.loader.epoch(epoch, turn))) for turn in turns)


def iterable_dataset(loader: BatchLoader, epoch: int = 0) -> Batches:
    """The batches of `loader.epoch(epoch)`, byte for byte, for `DataLoader(dataset, batch_size=None)`.

    Each is (images float32 (B, C, H, W) in [0, 1], labels int64 (B,)). Worker processes take the batches in turn, and
    they come in the loader's order. Every pass yields the same epoch until `dataset.set_epoch(k)` chooses another, as
    with DistributedSampler: worker processes cannot count the passes of the process that trains.

    Raises:
        DataError: `epoch` is no integer of at least 0.
    """
    return Batches(loader, epoch)


def _tensors(batch: Batch) -> Tensors:
    images, labels = batch
    return torch.from_numpy(images), torch.from_numpy(labels).long()
