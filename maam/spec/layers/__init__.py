"""The composites that serve as drop-in layers."""

from maam.spec.layers.gates import cbam, maf, mafb, mafc, se
from maam.spec.layers.maam import agent_block, maam, maam_stem, patch_widths, reduce_layer

__all__ = ["agent_block", "cbam", "maam", "maam_stem", "maf", "mafb", "mafc", "patch_widths", "reduce_layer", "se"]
