"""The PyTorch room."""

from maam.errors import require

require("torch", "torch")

from maam.torch.data import iterable_dataset  # noqa: E402
from maam.torch.image_folder import ImageFolderBatches  # noqa: E402
from maam.torch.layers import CBAM, MAAM, MAF, MAFB, MAFC, SE  # noqa: E402
from maam.torch.models import build  # noqa: E402
from maam.torch.optimization import Optimized, optimize  # noqa: E402
from maam.torch.weights import load, load_weights, save_weights  # noqa: E402

__all__ = [
    "CBAM",
    "MAAM",
    "MAF",
    "MAFB",
    "MAFC",
    "SE",
    "ImageFolderBatches",
    "Optimized",
    "build",
    "iterable_dataset",
    "load",
    "load_weights",
    "optimize",
    "save_weights",
]
