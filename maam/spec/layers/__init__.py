"""The composites that serve as drop-in layers."""

from maam.spec.layers.gates import cbam, maf, mafb, mafc, se
from maam.spec.layers.maam import agent_block, maam, reduce_layer
from maam.spec.layers.maam_stem import maam_stem, patch_widths

__all__ = ["agent_block", "cbam", "maam", "maam_stem", "maf", "mafb", "mafc", "patch_widths", "reduce_layer", "se"]
