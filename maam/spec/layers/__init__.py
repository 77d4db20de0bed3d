"""The composites that serve as drop-in layers."""

from maam.spec.layers.channel_attention import eca, ese, gc, gct, ge, sk
from maam.spec.layers.gates import cbam, maf, mafb, mafc, se
from maam.spec.layers.group_attention import ema, mrap, sge, shuffle
from maam.spec.layers.maam import agent_block, maam, maam_stem, patch_widths, reduce_layer
from maam.spec.layers.self_attention import agent, mhsa
from maam.spec.layers.spatial_attention import bam, coord, lka, scse, simam, triplet, van

__all__ = [
    "agent",
    "agent_block",
    "bam",
    "cbam",
    "coord",
    "eca",
    "ema",
    "ese",
    "gc",
    "gct",
    "ge",
    "lka",
    "maam",
    "maam_stem",
    "maf",
    "mafb",
    "mafc",
    "mhsa",
    "mrap",
    "patch_widths",
    "reduce_layer",
    "scse",
    "se",
    "sge",
    "shuffle",
    "simam",
    "sk",
    "triplet",
    "van",
]
