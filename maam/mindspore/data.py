"""Seeded batches as a MindSpore data set, and image folders decoded by mindspore.dataset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from mindspore.dataset import GeneratorDataset, vision
from mindspore.dataset.vision import Inter

from maam.data import BatchLoader
from maam.data.checks import check_count
from maam.data.image_batches import Decoded, ImageBatches, Sample, Work, open_picture, reason_of
from maam.data.loader import Batch, Rows

Array = np.ndarray[Any, Any]


class _Passes:
    """The source of one pipeline: each pass yields the next epoch, starting at `epoch`."""

    def __init__(self, loader: BatchLoader, epoch: int) -> None:
        self.loader = loader
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        self.epoch += 1
        return self.loader.epoch(self.epoch - 1)


class Batches(GeneratorDataset):
    """The data set that `generator_dataset` returns.

    MindSpore reads ahead, beyond the end of an epoch and to learn shapes, so passes cannot be counted while reading.
    Instead each pipeline has its own source that starts at `epoch`, and making an iterator advances `epoch`.

    Attributes:
        epoch: the first epoch of the next iterator; can be set.
    """

    source: Any

    def __init__(self, loader: BatchLoader, epoch: int = 0) -> None:
        self.epoch = check_count("epoch", epoch, 0)
        super().__init__(_Passes(loader, epoch), ["image", "label"], shuffle=False)

    def parse(self, children: Any = None) -> Any:
        """Return the pipeline of this data set, a copy that MindSpore made."""
        self.source = _Passes(self.source.loader, self.epoch)
        return super().parse(children)

    def create_tuple_iterator(self, columns: Any = None, num_epochs: int = -1, *args: Any, **kwargs: Any) -> Any:
        """Return MindSpore's iterator, and advance `epoch` by `num_epochs`, or by one if that is -1."""
        iterator = super().create_tuple_iterator(columns, num_epochs, *args, **kwargs)
        self.epoch += max(num_epochs, 1)
        return iterator

    def create_dict_iterator(self, num_epochs: int = -1, *args: Any, **kwargs: Any) -> Any:
        """Return MindSpore's iterator, and advance `epoch` by `num_epochs`, or by one if that is -1."""
        iterator = super().create_dict_iterator(num_epochs, *args, **kwargs)
        self.epoch += max(num_epochs, 1)
        return iterator


def generator_dataset(loader: BatchLoader, epoch: int = 0) -> Batches:
    """Return the batches of a loader as a GeneratorDataset.

    The batches are those of `loader.epoch(k)`, byte for byte. Each loop over the data set uses the next epoch k, and
    `Model.train(n, dataset)` uses the next n epochs. Data sinking, and data sets that are derived from this one with
    `map` or `repeat`, start at `dataset.epoch`; set this attribute yourself for them.

    Args:
        loader: the loader.
        epoch: the first epoch.

    Returns:
        A data set with the columns "image", float32 (B, C, H, W) in [0, 1], and "label", int32 (B,).

    Raises:
        DataError: `epoch` is not an integer of at least 0.

    Example:
        >>> import numpy as np
        >>> import maam
        >>> images, labels = np.zeros((6, 3, 8, 8), np.uint8), np.arange(6) % 2
        >>> loader = maam.data.BatchLoader(maam.data.ImageDataset(images, labels), 4, augmentation=None)
        >>> dataset = maam.mindspore.generator_dataset(loader)
        >>> [x.shape for x, y in dataset]
        [(4, 3, 8, 8), (2, 3, 8, 8)]
        >>> dataset.epoch
        1
    """
    return Batches(loader, epoch)


class ImageFolderBatches(ImageBatches):
    """Seeded batches of an image folder, read in the worker threads of mindspore.dataset.

    The arguments are those of `maam.data.ImageBatches`.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> import maam
        >>> for name in ("cat", "dog"):
        ...     Path("images/train", name).mkdir(parents=True)
        ...     Image.new("RGB", (40, 30)).save(f"images/train/{name}/1.png")
        >>> crop = maam.data.CenterCrop(size=16)
        >>> batches = maam.mindspore.ImageFolderBatches(maam.data.imagefolder("images"), 2, framing=crop)
        >>> [(images.shape, labels.shape) for images, labels in batches.epoch(0)]
        [((2, 3, 16, 16), (2,))]
    """

    def _decode(self, epoch: int, batches: list[Rows]) -> Iterator[Decoded]:
        workers = max(self.num_workers, 1)
        samples = GeneratorDataset(_Samples(epoch, np.concatenate(batches)), ["sample"], shuffle=False)
        images = samples.map([_Read(self.work)], ["sample"], ["image", "reason"], num_parallel_workers=workers)
        return images.batch(len(batches[0])).create_tuple_iterator(num_epochs=1, output_numpy=True)


class _Samples:
    """The samples (epoch, row) in the order of the epoch."""

    def __init__(self, epoch: int, rows: Rows) -> None:
        self.epoch = epoch
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Array]:
        return (np.array([self.epoch, self.rows[index]]),)


class _Read:
    """The function of a sample: its image (float32 (3, size, size)), and the reason why it cannot be read, or ""."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.flip = vision.RandomHorizontalFlip(1.0)
        self.scale = vision.ToTensor()
        self.normalize = vision.Normalize(list(work.mean), list(work.std), is_hwc=False)

    def __call__(self, values: Array) -> tuple[Array, Array]:
        sample = Sample(*(int(value) for value in values))
        path = self.work.dataset.path(sample.row)
        try:
            return self._image(str(path), sample), np.array("")
        except MemoryError:  # raised here, it would come out as a traceback of MindSpore's pipeline
            return self.work.blank(), np.array("not enough memory for this image")
        except Exception as error:  # decoders raise many kinds of errors
            return self.work.blank(), np.array(reason_of(error, path))

    def _image(self, path: str, sample: Sample) -> Array:
        picture = open_picture(path)
        frame = self.work.frame(sample, picture.height, picture.width)
        top, left, height, width = frame.source
        picture = vision.Resize(frame.size, Inter.BILINEAR)(picture.crop((left, top, left + width, top + height)))
        top, left, height, width = frame.crop
        picture = picture.crop((left, top, left + width, top + height))
        if frame.flip:
            picture = self.flip(picture)
        return self.normalize(self.scale(picture))
