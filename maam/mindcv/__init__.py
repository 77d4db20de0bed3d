"""Presets in MindCV's registry, and attention layers in MindCV's networks.

Importing this module registers every preset that is a classifier, so `mindcv.create_model("mafc_v2")` builds it.
"""

from maam.errors import require

require("mindspore", "mindcv")
require("mindcv", "mindcv")

import maam.mindspore  # noqa: E402, F401
from maam.mindcv.aliases import register_aliases  # noqa: E402
from maam.mindcv.insert import insert_attention  # noqa: E402
from maam.mindcv.models import create_model  # noqa: E402
from maam.mindcv.presets import register_presets  # noqa: E402
from maam.mindspore.insertion import list_attention  # noqa: E402

register_presets()
register_aliases()

__all__ = ["create_model", "insert_attention", "list_attention", "register_presets"]
