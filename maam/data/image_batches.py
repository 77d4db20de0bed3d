"""Batches of image files, in an order that a seed and an epoch decide; a framework's pipeline decodes them."""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from maam.data.dataset import Share, check_count, check_type
from maam.data.image_folder import ImageFolder
from maam.data.loader import Batch, EpochOrder, Rows
from maam.data.transforms import IMAGENET_MEAN, IMAGENET_STD, Frame, Framing, RandomResizedCrop
from maam.errors import DataError

Decoded = tuple[npt.NDArray[np.float32], Sequence[str]]


class BrokenImageWarning(UserWarning):
    """An image file cannot be read and is left out."""


class Sample(NamedTuple):
    """One image of an epoch, as a worker is asked for it."""

    epoch: int
    row: int


class Work(NamedTuple):
    """All that a worker needs to turn a `Sample` into an array."""

    dataset: ImageFolder
    framing: Framing
    seed: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def frame(self, sample: Sample, height: int, width: int) -> Frame:
        """Return the frame of an image: seed, epoch and row decide it, whoever computes it."""
        return self.framing.frame(height, width, np.random.default_rng([self.seed, *sample]))

    def blank(self) -> npt.NDArray[np.float32]:
        """Return what stands for an image that cannot be read, float32 (3, size, size)."""
        return np.zeros((3, self.framing.size, self.framing.size), np.float32)


def check_on_broken(choice: str) -> None:
    """Raise DataError for what is no answer to what happens where an image file is broken."""
    if choice not in ("error", "skip"):
        raise DataError(f"on_broken is {choice!r}; expected 'error' or 'skip'")


class ImageBatches(EpochOrder, ABC):
    """Yields the batches of an epoch; the same seed and epoch give the same bytes in every framework.

    Args:
        dataset: at least one image.
        batch_size: images in a batch, 1 or more; the last batch may be smaller.
        seed: decides order, crops and flips, 0 or more.
        shuffle: whether each epoch has its own random order, or all have the order of the data set.
        framing: `RandomResizedCrop` (of 224, the default) or `CenterCrop`.
        mean: for each channel, subtracted from the pixels in [0, 1].
        std: for each channel, what the rest is divided by.
        drop_last: whether a last batch that is smaller than `batch_size` is left out.
        num_workers: what decodes: 0 the calling process alone, else as many worker processes (PyTorch) or threads
            (MindSpore), at most one for each processor.
        share: (rank, size) of a process among several that share each batch; see `BatchLoader`.
        on_broken: what happens where a file is no image, empty or cut short: "error", or "skip": a warning, and
            the batch has an image less; a batch of broken files alone is left out, and is an error with `drop_last`.

    Attributes:
        broken: the reason by path, for each file that was left out so far.

    Raises:
        DataError: an argument is out of its range, or there would be no batch.
        MissingFrameworkError: torchvision is not installed, in PyTorch.
    """

    def __init__(
        self,
        dataset: ImageFolder,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        framing: Framing | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        drop_last: bool = False,
        num_workers: int = 0,
        on_broken: str = "error",
        share: Share = (0, 1),
    ) -> None:
        check_type("dataset", dataset, ImageFolder, "maam.data.imagefolder(root, split) lists one")
        if framing is not None and not hasattr(framing, "frame"):
            raise DataError(f"framing is {framing!r}; expected RandomResizedCrop(size) or CenterCrop(size, resize)")
        super().__init__(
            len(dataset), str(dataset.folder), batch_size, seed=seed, shuffle=shuffle, drop_last=drop_last, share=share
        )
        self.dataset = dataset
        self.num_workers = min(check_count("num_workers", num_workers, 0), _processors())
        check_on_broken(on_broken)
        self.on_broken = on_broken
        self.work = Work(
            dataset, framing or RandomResizedCrop(), self.seed, _channels("mean", mean), _channels("std", std)
        )
        self.broken: dict[str, str] = {}

    def epoch(self, index: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from batch `start` on.

        Args:
            index: the number of the epoch, 0 or more.
            start: the first batch to yield, 0..len(self); those before it are not read.

        Returns:
            An iterator over images float32 (B, 3, size, size), scaled to [0, 1] and normalised, and labels int32 (B,).

        Raises:
            DataError: `index` or `start` is out of its range; and from the iterator, an image cannot be read and
                `on_broken` is "error", or none of the epoch, or with `drop_last` of a batch, can be read.
        """
        order, _ = self.draw(index)
        batches = [order[part] for part in self.parts(start)]
        return self._batches(batches, self._decode(index, batches) if batches else iter(()))

    @abstractmethod
    def _decode(self, epoch: int, batches: list[Rows]) -> Iterator[Decoded]:
        """Yield each batch's images float32 (B, 3, size, size), and for each why it cannot be read, or "".

        All batches but the last are of one size.
        """

    def _batches(self, batches: list[Rows], decoded: Iterator[Decoded]) -> Iterator[Batch]:
        empty = bool(batches)
        for rows, (images, reasons) in zip(batches, decoded, strict=True):
            labels = self.dataset.labels[rows]
            whole = np.array([not reason for reason in reasons])
            if not whole.all():
                found = {str(self.dataset.path(row)): why for row, why in zip(rows, reasons, strict=True) if why}
                self._report(found, len(rows))
                images, labels = images[whole], labels[whole]
            if whole.any():
                empty = False
                yield images, labels
        if empty:
            path, reason = next(iter(self.broken.items()))
            raise DataError(f"{path}: {reason}; none of the images can be read")

    def _report(self, found: dict[str, str], size: int) -> None:
        """Refuse the broken files of a batch of `size`, or warn of each once."""
        path, reason = next(iter(found.items()))
        if self.on_broken == "error":
            advice = "mend or remove the file, or leave broken images out: on_broken='skip' (--on-broken skip)"
            raise DataError(f"{path}: {reason}; {advice}")
        if len(found) == size and self.drop_last:  # a training loop counts its steps
            raise DataError(f"{path}: {reason}; none of the {size} images of a batch can be read")
        for path, reason in found.items():
            if path not in self.broken:
                self.broken[path] = reason
                warnings.warn(f"{path}: {reason}; left out", BrokenImageWarning, stacklevel=4)


def reason_of(error: Exception, path: Path) -> str:
    """Why a file cannot be read, for people; each framework wraps its decoder's error in its own."""
    cause: BaseException = error
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
    if not path.exists():
        return "no such file"
    if path.stat().st_size == 0:
        return "an empty file"
    if type(cause).__name__ == "UnidentifiedImageError":
        return "not an image"
    if isinstance(cause, OSError) and cause.errno is not None:
        return f"cannot be read ({cause.strerror})"
    return f"a broken image ({' '.join(str(cause).split())})"


def check_mode(mode: str) -> None:
    """Refuse pixels that Pillow would cut off at 255 where it makes 8 bits of them.

    Raises:
        ValueError: `mode`, Pillow's, is one of more than 8 bits a channel.
    """
    if mode in ("I", "F") or mode.startswith("I;"):
        raise ValueError(f"pixels of more than 8 bits, mode {mode}; convert the file to 8 bits")


def _processors() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _channels(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not all(np.isfinite(numbers)) or (name == "std" and min(numbers) <= 0):
        above = " above 0" if name == "std" else ""
        raise DataError(f"{name} is {values!r}; expected three numbers{above}, one for each channel")
    return numbers
