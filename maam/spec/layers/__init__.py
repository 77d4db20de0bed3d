"""The composites that serve as drop-in layers."""

from maam.spec.layers.gates import cbam, maf, mafb, mafc, se
from maam.spec.layers.maam import agent_block, maam, reduce_layer

__all__ = ["agent_block", "cbam", "maam", "maf", "mafb", "mafc", "reduce_layer", "se"]
