"""Image files through torchvision's transforms and worker processes of a DataLoader."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from maam.data.image_batches import Decoded, ImageBatches, Sample, Work, check_mode, reason_of
from maam.data.order import Rows
from maam.errors import require


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
