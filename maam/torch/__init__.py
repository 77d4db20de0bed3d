"""maam in PyTorch: attention layers, models and weights files as ordinary `torch.nn.Module` objects."""

import importlib
from typing import TYPE_CHECKING, Any

from maam.errors import require

require("torch", "torch")

from maam.torch.layers import (  # noqa: E402
    BAM,
    CBAM,
    ECA,
    EMA,
    ESE,
    GC,
    GCT,
    GE,
    LKA,
    MAAM,
    MAF,
    MAFB,
    MAFC,
    MRAP,
    SE,
    SGE,
    SK,
    AgentAttention,
    CoordAttention,
    ScSE,
    ShuffleAttention,
    SimAM,
    SoftmaxAttention,
    TripletAttention,
    VANAttention,
)
from maam.torch.weights import build, load, load_weights, save_weights  # noqa: E402

if TYPE_CHECKING:
    from maam.torch.data import ImageFolderBatches, iterable_dataset
    from maam.torch.insertion import insert_attention
    from maam.torch.optimization import Optimized, optimize

_LAZY = {
    "insert_attention": "maam.torch.insertion",
    "ImageFolderBatches": "maam.torch.data",
    "Optimized": "maam.torch.optimization",
    "iterable_dataset": "maam.torch.data",
    "optimize": "maam.torch.optimization",
}
"""Names that are imported on first use, each with its module; layers and models do not need them."""

__all__ = [
    "BAM",
    "CBAM",
    "ECA",
    "EMA",
    "ESE",
    "GC",
    "GCT",
    "GE",
    "LKA",
    "MAAM",
    "MAF",
    "MAFB",
    "MAFC",
    "MRAP",
    "SE",
    "SGE",
    "SK",
    "AgentAttention",
    "CoordAttention",
    "ImageFolderBatches",
    "Optimized",
    "ScSE",
    "ShuffleAttention",
    "SimAM",
    "SoftmaxAttention",
    "TripletAttention",
    "VANAttention",
    "build",
    "insert_attention",
    "iterable_dataset",
    "load",
    "load_weights",
    "optimize",
    "save_weights",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'maam.torch' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
