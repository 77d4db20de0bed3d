"""Image data sets and the preprocessing of images, with numpy only."""

from maam.data.archives import download
from maam.data.augmentation import Augmentation, Crops, to_float
from maam.data.batches import BatchLoader
from maam.data.cifar import cifar10, cifar100
from maam.data.dataset import ImageDataset
from maam.data.framing import IMAGENET_MEAN, IMAGENET_STD, CenterCrop, RandomResizedCrop
from maam.data.image_batches import BrokenImageWarning, ImageBatches
from maam.data.image_folder import ImageFolder, imagefolder
from maam.data.scikit_digits import digits

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
    "RandomResizedCrop",
    "cifar10",
    "cifar100",
    "digits",
    "download",
    "imagefolder",
    "to_float",
]
