"""maam's seeded batches as a data set of MindSpore."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from mindspore.dataset import GeneratorDataset, vision
from mindspore.dataset.vision import Inter
from PIL import Image

from maam.data import BatchLoader
from maam.data.checks import check_count
from maam.data.image_batches import Decoded, ImageBatches, Sample, Work, check_mode, reason_of
from maam.data.loader import Batch, Rows


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


Array = np.ndarray[Any, Any]


class ImageFolderBatches(ImageBatches):
    """`maam.data.ImageBatches`, decoded by mindspore.dataset's transforms of PIL images, in its worker threads."""

    def _decode(self, epoch: int, batches: list[Rows]) -> Iterator[Decoded]:
        workers = max(self.num_workers, 1)
        samples = GeneratorDataset(_Samples(epoch, np.concatenate(batches)), ["sample"], shuffle=False)
        images = samples.map([_Read(self.work)], ["sample"], ["image", "reason"], num_parallel_workers=workers)
        return images.batch(len(batches[0])).create_tuple_iterator(num_epochs=1, output_numpy=True)


class _Samples:
    """What the pipeline asks for: (epoch, row), in the order of the epoch."""

    def __init__(self, epoch: int, rows: Rows) -> None:
        self.epoch = epoch
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Array]:
        return (np.array([self.epoch, self.rows[index]]),)


class _Read:
    """What workers run: a sample to its image float32 (3, size, size), and why it cannot be read, or ""."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.decode = vision.Decode(to_pil=True)
        self.flip = vision.RandomHorizontalFlip(1.0)
        self.scale = vision.ToTensor()
        self.normalize = vision.Normalize(list(work.mean), list(work.std), is_hwc=False)

    def __call__(self, values: Array) -> tuple[Array, Array]:
        sample = Sample(*(int(value) for value in values))
        path = self.work.dataset.path(sample.row)
        try:
            return self._image(path.read_bytes(), sample), np.array("")
        except MemoryError:
            raise
        except Exception as error:  # decoders raise errors of many kinds
            return self.work.blank(), np.array(reason_of(error, path))

    def _image(self, content: bytes, sample: Sample) -> Array:
        with Image.open(io.BytesIO(content)) as stored:
            check_mode(stored.mode)
        picture = self.decode(np.frombuffer(content, np.uint8))
        frame = self.work.frame(sample, picture.height, picture.width)
        top, left, height, width = frame.source
        picture = vision.Resize(frame.size, Inter.BILINEAR)(picture.crop((left, top, left + width, top + height)))
        top, left, height, width = frame.crop
        picture = picture.crop((left, top, left + width, top + height))
        if frame.flip:
            picture = self.flip(picture)
        return self.normalize(self.scale(picture))
