"""The MindSpore room."""

import os

from maam.errors import MissingFrameworkError, require

require("mindspore", "mindspore")
os.environ.setdefault("GLOG_v", "3")  # read once, at import: without it every run prints pages of warnings
try:
    import mindspore as _mindspore  # noqa: F401
except TypeError as error:
    if "Descriptors" not in str(error):
        raise
    raise MissingFrameworkError(
        "mindspore must be imported before onnx, because both bring protobuf: "
        "import maam.mindspore first, or set PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python"
    ) from None

from maam.mindspore.configure import Configuration, cap_instructions, configure  # noqa: E402
from maam.mindspore.data import (  # noqa: E402
    ImageFolderBatches,
    generator_dataset,
)
from maam.mindspore.layers import CBAM, MAAM, MAF, MAFB, MAFC, SE  # noqa: E402
from maam.mindspore.weights import (  # noqa: E402
    build,
    load,
    load_weights,
    save_weights,
)

cap_instructions()

__all__ = [
    "CBAM",
    "MAAM",
    "MAF",
    "MAFB",
    "MAFC",
    "SE",
    "Configuration",
    "ImageFolderBatches",
    "build",
    "configure",
    "generator_dataset",
    "load",
    "load_weights",
    "save_weights",
]
