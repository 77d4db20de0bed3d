"""maam's seeded batches as a data set of MindSpore."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mindspore.dataset import GeneratorDataset

from maam.data import BatchLoader
from maam.data.batches import Batch
from maam.data.checks import check_count


class _Passes:
    """What one pipeline reads: each pass over it yields the next epoch, from `epoch` on."""

    def __init__(self, loader: BatchLoader, epoch: int) -> None:
        self.loader = loader
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        self.epoch += 1
        return self.loader.epoch(self.epoch - 1)


class Batches(GeneratorDataset):
    """What `generator_dataset` returns.

    MindSpore reads ahead, beyond the end of an epoch and to know shapes, so passes are not counted where they are
    read: each pipeline starts at `epoch` with a source of its own, and `epoch` moves when an iterator is made.

    Attributes:
        epoch: the first epoch of the next iterator; it may be set.
    """

    source: Any

    def __init__(self, loader: BatchLoader, epoch: int = 0) -> None:
        self.epoch = check_count("epoch", epoch, 0)
        super().__init__(_Passes(loader, epoch), ["image", "label"], shuffle=False)

    def parse(self, children: Any = None) -> Any:
        """The pipeline of this (MindSpore's copy of the) data set."""
        self.source = _Passes(self.source.loader, self.epoch)
        return super().parse(children)

    def create_tuple_iterator(self, columns: Any = None, num_epochs: int = -1, *args: Any, **kwargs: Any) -> Any:
        """MindSpore's; takes `num_epochs` epochs, or one where that is -1."""
        iterator = super().create_tuple_iterator(columns, num_epochs, *args, **kwargs)
        self.epoch += max(num_epochs, 1)
        return iterator

    def create_dict_iterator(self, num_epochs: int = -1, *args: Any, **kwargs: Any) -> Any:
        """MindSpore's; takes `num_epochs` epochs, or one where that is -1."""
        iterator = super().create_dict_iterator(num_epochs, *args, **kwargs)
        self.epoch += max(num_epochs, 1)
        return iterator


def generator_dataset(loader: BatchLoader, epoch: int = 0) -> Batches:
    """A GeneratorDataset of the batches of `loader.epoch(k)`, byte for byte, k counting up from `epoch`.

    Columns: "image", float32 (B, C, H, W) in [0, 1], and "label", int32 (B,). Each loop over the data set takes the
    next epoch, `Model.train(n, dataset)` the next n. Each pipeline of a data set made of this one (`map`, `repeat`), or
    with data sinking, starts at `dataset.epoch`, which then is yours to set.

    Raises:
        DataError: `epoch` is no integer of at least 0.
    """
    return Batches(loader, epoch)
