"""Batches of image files; seed and epoch determine their order, and a backend decodes them."""

from __future__ import annotations

import os
import stat
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from maam._messages import one_line
from maam.data.checks import check_choice, check_count, check_type
from maam.data.image_folder import ImageFolder
from maam.data.loader import Batch, EpochOrder, Rows, Share
from maam.data.transforms import IMAGENET_MEAN, IMAGENET_STD, Frame, Framing, RandomResizedCrop
from maam.errors import DataError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are decoded, whatever the suffix of a file; Pillow runs another program to read EPS."""
BACKGROUND = "white"
"""The color behind transparent pixels."""
_ORIENTATION = 0x0112
"""The EXIF tag of the orientation."""
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""For each EXIF orientation the name of Pillow's operation that turns the pixels upright."""
Decoded = tuple[npt.NDArray[np.float32], Sequence[str]]
"""The images of a batch, float32 (B, 3, size, size), and for each one the reason why it cannot be read, or ""."""


class BrokenImageWarning(UserWarning):
    """A warning that an image file cannot be read and is skipped."""


class Sample(NamedTuple):
    """A request to a worker: one image of one epoch."""

    epoch: int
    row: int


class Work(NamedTuple):
    """The settings with which a worker turns a `Sample` into an array."""

    dataset: ImageFolder
    framing: Framing
    seed: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def frame(self, sample: Sample, height: int, width: int) -> Frame:
        """Return the frame of an image; seed, epoch and row determine it in every process."""
        return self.framing.frame(height, width, np.random.default_rng([self.seed, *sample]))

    def blank(self) -> npt.NDArray[np.float32]:
        """Return the placeholder of an image that cannot be read, float32 (3, size, size)."""
        return np.zeros((3, self.framing.size, self.framing.size), np.float32)


def check_on_broken(choice: str) -> None:
    """Raise `DataError` unless `choice` is "error" or "skip"."""
    check_choice("on_broken", choice, ("error", "skip"))


class ImageBatches(EpochOrder, ABC):
    """Batches of an `ImageFolder`; the same seed and epoch give the same bytes in every framework.

    This is the base of `maam.torch.ImageFolderBatches` and `maam.mindspore.ImageFolderBatches`, which decode the files.

    Args:
        dataset: a data set with at least one image.
        batch_size: images in a batch, 1 or more. The last batch may be smaller.
        seed: seed of the order, the crops and the flips, 0 or more.
        shuffle: whether each epoch has its own random order. False: all epochs have the order of the data set.
        framing: `RandomResizedCrop` or `CenterCrop`. Default: `RandomResizedCrop(224)`.
        mean: three numbers, subtracted from the channels of the pixels in [0, 1].
        std: three numbers; after subtracting the mean, the channels are divided by them.
        drop_last: whether to drop a last batch that is smaller than `batch_size`.
        num_workers: the number of worker processes (PyTorch) or threads (MindSpore) that decode, at most one for each
            processor. 0: the calling process decodes.
        on_broken: what to do with a file that is empty, truncated or not an image. "error" raises `DataError`; "skip"
            warns and omits the image from its batch. A batch without a readable image is skipped, or is an error if
            `drop_last` is true.
        share: (rank, size) of one process among several that share each batch; see `BatchLoader`.

    Attributes:
        broken: the reasons why files were skipped so far, by path.

    Raises:
        DataError: an argument is out of its range, or an epoch would have no batch.
        MissingFrameworkError: torchvision is not installed (PyTorch only).

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from maam.data import CenterCrop, ImageBatches, imagefolder
        >>> class BlackImages(ImageBatches):  # a backend decodes the files here
        ...     def _decode(self, epoch, batches):
        ...         for rows in batches:
        ...             yield np.stack([self.work.blank() for row in rows]), ["" for row in rows]
        >>> Path("images/train/cat").mkdir(parents=True)
        >>> Path("images/train/cat/1.jpg").touch()
        >>> batches = BlackImages(imagefolder("images"), 1, framing=CenterCrop(32, resize=36))
        >>> [(images.shape, labels.tolist()) for images, labels in batches.epoch(0)]
        [((1, 3, 32, 32), [0])]
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
        check_type("dataset", dataset, ImageFolder, "maam.data.imagefolder(root, split) returns one")
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
        """Return an iterator over the batches of an epoch, from batch `start` on.

        Args:
            index: the number of the epoch, 0 or more.
            start: the first batch, 0..len(self). The files of earlier batches are not read.

        Returns:
            An iterator over images float32 (B, 3, size, size), scaled to [0, 1] and normalized, and labels int32 (B,).

        Raises:
            DataError: `index` or `start` is out of its range. The iterator raises it if an image cannot be read and
                `on_broken` is "error", if no image of the epoch can be read, or if no image of a batch can be read and
                `drop_last` is true.
        """
        order, _ = self.draw(index)
        batches = [order[part] for part in self.parts(start)]
        return self._batches(batches, self._decode(index, batches) if batches else iter(()))

    @abstractmethod
    def _decode(self, epoch: int, batches: list[Rows]) -> Iterator[Decoded]:
        """Yield the decoded images of each batch; all batches but the last have the same size."""

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
            raise DataError(f"{path}: {reason}; no image of the epoch can be read")

    def _report(self, found: dict[str, str], size: int) -> None:
        """Raise `DataError` for the broken files in a batch of `size`, or warn once about each file."""
        path, reason = next(iter(found.items()))
        if self.on_broken == "error":
            advice = "repair or remove the file, or skip broken images with on_broken='skip' (--on-broken skip)"
            raise DataError(f"{path}: {reason}; {advice}")
        if len(found) == size and self.drop_last:  # a training loop relies on the number of batches
            raise DataError(f"{path}: {reason}; no image can be read in a batch of {size}; remove the broken files")
        for path, reason in found.items():
            if path not in self.broken:
                self.broken[path] = reason
                warnings.warn(f"{path}: {reason}; the image is left out", BrokenImageWarning, stacklevel=4)


def reason_of(error: Exception, path: Path) -> str:
    """Return a readable reason why a file cannot be read, without the frameworks' wrapping errors."""
    cause: BaseException = error
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
    if not path.exists():
        return "no such file"
    if not path.is_file():
        return "a device, a pipe or a folder"
    if path.stat().st_size == 0:
        return "an empty file"
    if type(cause).__name__ == "UnidentifiedImageError":
        return "not an image"
    if isinstance(cause, OSError) and cause.errno is not None:
        return f"cannot be read ({cause.strerror})"
    if isinstance(cause, (AttributeError, LookupError, TypeError)):  # Pillow fails on the content without a reason
        return "a broken image"
    return f"a broken image ({one_line(cause)})"


def open_picture(file: Any) -> Any:
    """Return an image file as an upright RGB picture, as a viewer shows it.

    The orientation in the file's metadata (EXIF) is applied. Transparent pixels are blended with white, so that the
    colors that a file stores under them do not matter. Every backend decodes with this function.

    Args:
        file: a path, or an open binary file.

    Returns:
        A picture of Pillow in mode RGB.

    Raises:
        ValueError: the pixels have more than 8 bits a channel, which Pillow would clip at 255; or `file` is the path of
            a device or a pipe.
        PIL.UnidentifiedImageError: the content is not in one of `FORMATS`.
    """
    from PIL import Image

    if isinstance(file, (str, os.PathLike)) and not stat.S_ISREG(os.stat(file).st_mode):
        raise ValueError("a device, a pipe or a folder")  # a pipe could have no end
    with Image.open(file, formats=FORMATS) as stored:
        if stored.mode in ("I", "F") or stored.mode.startswith("I;"):
            raise ValueError(f"pixels of more than 8 bits, mode {stored.mode}; convert the file to 8 bits")
        stored.load()  # formats such as TIFF turn the pixels here, and then remove the orientation
        turn = _TURNS.get(_orientation(stored))
        picture = stored if turn is None else stored.transpose(Image.Transpose[turn])
        if not _has_transparency(stored):
            return picture.convert("RGB")
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, BACKGROUND), layer).convert("RGB")


def _has_transparency(stored: Any) -> bool:
    """Return whether an opened image has an alpha channel, or a color or palette entries that are transparent."""
    alpha = stored.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in stored.info
    return alpha or (stored.mode == "P" and stored.palette.mode.endswith("A"))


def _orientation(stored: Any) -> Any:
    """Return the EXIF orientation, or None if the metadata is absent or broken; the pixels can still be read."""
    try:
        return stored.getexif().get(_ORIENTATION)
    except Exception:  # Pillow raises many kinds for broken metadata
        return None


def _processors() -> int:
    """Return the number of processors that this process may use."""
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
