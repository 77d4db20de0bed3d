"""The attention layers that the networks take by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from maam.spec import layers
from maam.spec.node import Node

ChannelGate = Literal["se", "maf", "ese", "eca", "gc", "ge", "gct", "sk"]
PositionGate = Literal[
    "cbam", "mafc", "scse", "coord", "simam", "triplet", "lka", "van", "sge", "shuffle", "ema", "mrap"
]
UnitGate = Literal[ChannelGate, PositionGate, "mhsa", "agent"]
StageGate = Literal["mafb", "bam"]
Attention = Literal[UnitGate, StageGate]

GATES: dict[str, Callable[[int], Node]] = {name: getattr(layers, name) for name in get_args(Attention)}
"""The function of each layer, from the number of channels to the spec."""
