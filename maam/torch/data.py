"""Seeded batches as a PyTorch data set, and image folders decoded by torchvision."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from maam.data import BatchLoader
from maam.data.checks import check_count
from maam.data.image_batches import Decoded, ImageBatches, Sample, Work, open_picture, reason_of
from maam.data.loader import Batch, Rows
from maam.errors import require

Tensors = tuple[Tensor, Tensor]


class Batches(IterableDataset[Tensors]):
    """Data set of the batches of an epoch, as `iterable_dataset` returns it; its length is the number of batches."""

    def __init__(self, loader: BatchLoader, epoch: int = 0) -> None:
        self.loader = loader
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # persistent workers see it change
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass.

        Raises:
            DataError: `epoch` is not an integer of at least 0.
        """
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
    """Return the batches of a loader as a data set for `DataLoader(dataset, batch_size=None)`.

    The batches are those of `loader.epoch(epoch)`, byte for byte and in the same order, with any number of worker
    processes. Every pass yields the same epoch until `dataset.set_epoch(k)` chooses another one, as with
    DistributedSampler.

    Args:
        loader: the loader.
        epoch: the epoch of the first pass.

    Returns:
        A data set of (images, labels): float32 (B, C, H, W) in [0, 1], and int64 (B,).

    Raises:
        DataError: `epoch` is not an integer of at least 0.

    Example:
        >>> import numpy as np
        >>> from torch.utils.data import DataLoader
        >>> import maam
        >>> images, labels = np.zeros((6, 3, 8, 8), np.uint8), np.arange(6) % 2
        >>> loader = maam.data.BatchLoader(maam.data.ImageDataset(images, labels), 4, augmentation=None)
        >>> dataset = maam.torch.iterable_dataset(loader)
        >>> [tuple(x.shape) for x, y in DataLoader(dataset, batch_size=None)]
        [(4, 3, 8, 8), (2, 3, 8, 8)]
        >>> dataset.set_epoch(1)
    """
    return Batches(loader, epoch)


def _tensors(batch: Batch) -> Tensors:
    images, labels = batch
    return torch.from_numpy(images), torch.from_numpy(labels).long()


class ImageFolderBatches(ImageBatches):
    """Seeded batches of an image folder, decoded by torchvision in the worker processes of a DataLoader.

    The arguments are those of `maam.data.ImageBatches`.

    Raises:
        MissingFrameworkError: torchvision is not installed.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> import maam
        >>> for name in ("cat", "dog"):
        ...     Path("images/train", name).mkdir(parents=True)
        ...     Image.new("RGB", (40, 30)).save(f"images/train/{name}/1.png")
        >>> crop = maam.data.CenterCrop(size=16)
        >>> batches = maam.torch.ImageFolderBatches(maam.data.imagefolder("images"), 2, framing=crop)
        >>> [(images.shape, labels.shape) for images, labels in batches.epoch(0)]
        [((2, 3, 16, 16), (2,))]
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        require("torchvision", "torch")
        super().__init__(*args, **kwargs)

    def _decode(self, epoch: int, batches: list[Rows]) -> Iterator[Decoded]:
        samples = _Samples(epoch, batches)
        loader = DataLoader(
            _Images(self.work),
            batch_sampler=samples,
            num_workers=self.num_workers,
            worker_init_fn=_leave_signals,
        )
        return ((images.numpy(), reasons) for images, reasons in loader)


def _leave_signals(worker: int) -> None:
    """Leave Ctrl-C and SIGTERM, which a terminal or a scheduler sends to all processes, to the training process.

    It needs the worker until its current step is done. Its own SIGTERM still ends the worker.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS and Windows, where SIGTERM ends the worker
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(parent: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)


class _Samples:
    """The samples of an epoch, a batch at a time; each worker reads one batch."""

    def __init__(self, epoch: int, batches: list[Rows]) -> None:
        self.epoch = epoch
        self.batches = batches

    def __iter__(self) -> Iterator[list[Sample]]:
        return ([Sample(self.epoch, int(row)) for row in batch] for batch in self.batches)


class _Images(Dataset[tuple[Tensor, str]]):
    """The images (float32 (3, size, size)) of samples, each with the reason why it cannot be read, or ""."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def __getitem__(self, sample: Sample) -> tuple[Tensor, str]:
        path = self.work.dataset.path(sample.row)
        try:
            return _image(str(path), self.work, sample), ""
        except MemoryError:
            raise
        except Exception as error:  # decoders raise many kinds of errors
            return torch.from_numpy(self.work.blank()), reason_of(error, path)


def _image(path: str, work: Work, sample: Sample) -> Tensor:
    from torchvision.transforms import functional as F  # noqa: N812

    picture = open_picture(path)
    frame = work.frame(sample, picture.height, picture.width)
    picture = F.resized_crop(picture, *frame.source, size=list(frame.size))
    picture = F.crop(picture, *frame.crop)
    if frame.flip:
        picture = F.hflip(picture)
    scaled = F.to_tensor(picture)  # divides by 255, as NumPy and MindSpore do; v2.to_dtype multiplies by 1 / 255
    return F.normalize(scaled, list(work.mean), list(work.std))
