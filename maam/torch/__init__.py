"""The PyTorch room."""

from maam.errors import require

require("torch", "torch")

from maam.torch.data import (  # noqa: E402
    ImageFolderBatches,
    iterable_dataset,
)
from maam.torch.layers import CBAM, MAAM, MAF, MAFB, MAFC, SE  # noqa: E402
from maam.torch.optimize import Optimized, optimize  # noqa: E402
from maam.torch.weights import (  # noqa: E402
    build,
    load,
    load_weights,
    save_weights,
)

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
