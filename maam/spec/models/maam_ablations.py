"""What stands in front of the MAAM classifier, whole and with a part taken away (Table 2 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from maam.spec.composites import one_each
from maam.spec.layers.blocks import NormName
from maam.spec.layers.maam import NUM_CONVS, agent_block, maam, reduce_layer
from maam.spec.node import Node
from maam.spec.primitives import ElementwiseName, MaxPool2d

Ablation = Literal["none", "t_cnn", "without_agent_attention", "without_fusion", "without_reduce"]
Body = dict[str, Node]
"""Named layers from the image (in_channels, H, W) to the feature map (channels, H', W')."""


def _whole(in_channels: int, channels: int, **layer: Any) -> Body:
    return dict(maam(in_channels, channels, **layer).children)


def _t_cnn(
    in_channels: int,
    channels: int,
    *,
    num_agents: int,
    kernel_sizes: tuple[int, ...],
    scales: tuple[int, ...],
    fusion: str,
    reduce: bool,
    **branch: Any,
) -> Body:
    """The first branch alone."""
    kernel_size = one_each("kernel_sizes", kernel_sizes, num_agents, "agents")[0]
    scale = one_each("scales", scales, num_agents, "agents")[0]
    return {"agent": agent_block(in_channels, channels, kernel_size=kernel_size, scale=scale, **branch)}


def _without_agent_attention(
    in_channels: int,
    channels: int,
    *,
    pool: tuple[int, ...],
    act_layer: ElementwiseName,
    norm_layer: NormName,
    **_: Any,
) -> Body:
    """The image max-pooled to the size of F, then the reduce layer."""
    pools = pool if len(pool) == 1 else one_each("pool", pool, NUM_CONVS, "convolutions")
    shrink = MaxPool2d(kernel_size=math.prod(pools))
    return {
        "pool": shrink,
        "reduce": reduce_layer(in_channels, channels, act_layer=act_layer, norm_layer=norm_layer),
    }


def _without_fusion(in_channels: int, channels: int, **layer: Any) -> Body:
    return _whole(in_channels, channels, **{**layer, "fusion": "mean"})


def _without_reduce(in_channels: int, channels: int, **layer: Any) -> Body:
    return _whole(in_channels, channels, **{**layer, "reduce": False})


class Variant(NamedTuple):
    """How to make a body of `maam`'s arguments, and those of them that it does not heed."""

    make: Callable[..., Body]
    unheeded: tuple[str, ...] = ()


VARIANTS: dict[Ablation, Variant] = {
    "none": Variant(_whole),
    "t_cnn": Variant(_t_cnn, ("num_agents", "fusion", "reduce")),
    "without_agent_attention": Variant(
        _without_agent_attention,
        ("hidden_channels", "num_agents", "kernel_sizes", "scales", "fusion", "reduce", "depthwise"),
    ),
    "without_fusion": Variant(_without_fusion, ("fusion",)),
    "without_reduce": Variant(_without_reduce, ("reduce",)),
}
