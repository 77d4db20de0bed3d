"""Presets in timm's registry, attention layers in timm's networks, and MAAM as the stem of vision transformers.

Importing this module registers every preset that is a classifier with at least three feature maps, so
`timm.create_model("mafc_v2")` builds it.
"""

from maam.errors import MissingFrameworkError, require

require("torch", "torch")
require("timm", "timm")

import timm  # noqa: E402
from torch.torch_version import TorchVersion  # noqa: E402

MINIMUM = "1.0.9"
if TorchVersion(timm.__version__) < MINIMUM:
    raise MissingFrameworkError(
        f"timm {timm.__version__} is installed, maam needs {MINIMUM} or later; run: pip install --upgrade 'maam[timm]'"
    )

from maam.timm.aliases import register_aliases  # noqa: E402
from maam.timm.embedding import MAAMEmbed, TokenMap  # noqa: E402
from maam.timm.insert import insert_attention  # noqa: E402
from maam.timm.models import create_model  # noqa: E402
from maam.timm.presets import register_presets  # noqa: E402
from maam.torch.insertion import list_attention  # noqa: E402

register_presets()
register_aliases()

__all__ = ["MAAMEmbed", "TokenMap", "create_model", "insert_attention", "list_attention", "register_presets"]
