"""Image data sets, augmentation and batches, with NumPy only."""

from maam.data.archives import download
from maam.data.cifar import cifar10, cifar100
from maam.data.dataset import ImageDataset, digits
from maam.data.image_batches import BrokenImageWarning, ImageBatches
from maam.data.image_folder import ImageFolder, imagefolder
from maam.data.loader import BatchLoader
from maam.data.mixing import Mixing
from maam.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    CenterCrop,
    Crops,
    RandomResizedCrop,
    to_float,
)

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Augmentation",
    "BatchLoader",
    "BrokenImageWarning",
    "CenterCrop",
    "Crops",
    "ImageBatches",
    "ImageDataset",
    "ImageFolder",
    "Mixing",
    "RandomResizedCrop",
    "cifar10",
    "cifar100",
    "digits",
    "download",
    "imagefolder",
    "to_float",
]
