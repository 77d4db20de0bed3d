"""Image data sets and the preprocessing of images, with numpy only."""

from maam.data.archives import download
from maam.data.augmentation import Augmentation, Crops, to_float
from maam.data.batches import BatchLoader
from maam.data.cifar import cifar10, cifar100
from maam.data.dataset import ImageDataset
from maam.data.scikit_digits import digits

__all__ = [
    "Augmentation",
    "BatchLoader",
    "Crops",
    "ImageDataset",
    "cifar10",
    "cifar100",
    "digits",
    "download",
    "to_float",
]
