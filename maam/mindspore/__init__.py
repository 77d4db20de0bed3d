"""maam in MindSpore: attention layers, models and weights files as ordinary `mindspore.nn.Cell` objects."""

import importlib
import os
from typing import TYPE_CHECKING, Any

from maam._system import can_import_mindspore
from maam.errors import MissingFrameworkError, require

require("mindspore", "mindspore")
os.environ.setdefault("GLOG_v", "3")  # MindSpore reads it on import; without it every run prints pages of warnings
if not can_import_mindspore():  # the failed import would end the process
    raise MissingFrameworkError(
        "this version of mindspore cannot be imported after onnx, because both load protobuf; import maam.mindspore "
        "first, set PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python, or run: pip install 'mindspore>=2.10'"
    )

from maam.mindspore.configuration import (  # noqa: E402
    Configuration,
    ask_for_numpy,
    cap_instructions,
    configure,
)
from maam.mindspore.layers import (  # noqa: E402
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
from maam.mindspore.weights import build, load, load_weights, save_weights  # noqa: E402

if TYPE_CHECKING:
    from maam.mindspore.data import ImageFolderBatches, generator_dataset
    from maam.mindspore.insertion import insert_attention

_LAZY = {
    "insert_attention": "maam.mindspore.insertion",
    "ImageFolderBatches": "maam.mindspore.data",
    "generator_dataset": "maam.mindspore.data",
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
    "Configuration",
    "CoordAttention",
    "ImageFolderBatches",
    "ScSE",
    "ShuffleAttention",
    "SimAM",
    "SoftmaxAttention",
    "TripletAttention",
    "VANAttention",
    "build",
    "configure",
    "generator_dataset",
    "insert_attention",
    "load",
    "load_weights",
    "save_weights",
]

cap_instructions()
ask_for_numpy()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'maam.mindspore' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
