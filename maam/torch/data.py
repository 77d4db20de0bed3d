"""maam's seeded batches as a data set of PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from maam.data import BatchLoader
from maam.data.checks import check_count
from maam.data.image_batches import Decoded, ImageBatches, Sample, Work, check_mode, reason_of
from maam.data.loader import Batch, Rows
from maam.errors import require

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


class ImageFolderBatches(ImageBatches):
    """`maam.data.ImageBatches`, decoded by torchvision's transforms, in worker processes of a DataLoader."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        require("torchvision", "torch")
        super().__init__(*args, **kwargs)

    def _decode(self, epoch: int, batches: list[Rows]) -> Iterator[Decoded]:
        samples = _Samples(epoch, batches)
        loader = DataLoader(_Images(self.work), batch_sampler=samples, num_workers=self.num_workers)
        return ((images.numpy(), reasons) for images, reasons in loader)


class _Samples:
    """What the workers are asked for, a batch at a time, in the order of the epoch."""

    def __init__(self, epoch: int, batches: list[Rows]) -> None:
        self.epoch = epoch
        self.batches = batches

    def __iter__(self) -> Iterator[list[Sample]]:
        return ([Sample(self.epoch, int(row)) for row in batch] for batch in self.batches)


class _Images(Dataset[tuple[Tensor, str]]):
    """What workers run: a sample to its image float32 (3, size, size), and why it cannot be read, or ""."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def __getitem__(self, sample: Sample) -> tuple[Tensor, str]:
        path = self.work.dataset.path(sample.row)
        try:
            return _image(str(path), self.work, sample), ""
        except MemoryError:
            raise
        except Exception as error:  # decoders raise errors of many kinds
            return torch.from_numpy(self.work.blank()), reason_of(error, path)


def _image(path: str, work: Work, sample: Sample) -> Tensor:
    from PIL import Image
    from torchvision.transforms import functional as F  # noqa: N812

    with Image.open(path) as stored:
        check_mode(stored.mode)
        picture = stored.convert("RGB")
    frame = work.frame(sample, picture.height, picture.width)
    picture = F.resized_crop(picture, *frame.source, size=list(frame.size))
    picture = F.crop(picture, *frame.crop)
    if frame.flip:
        picture = F.hflip(picture)
    scaled = F.to_tensor(picture)  # divides by 255, as NumPy and MindSpore do; v2.to_dtype multiplies by 1 / 255
    return F.normalize(scaled, list(work.mean), list(work.std))
