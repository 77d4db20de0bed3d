"""Attention between the positions of a map: softmax and agent attention, with which the MAAM paper compares."""

from __future__ import annotations

import math

from maam.spec.composites import composite
from maam.spec.fields import Flag, Size
from maam.spec.graph import Graph
from maam.spec.pooling import AdaptiveAvgPool2d, Softmax
from maam.spec.primitives import Conv2d, Linear
from maam.spec.rearrange import Rearrange


@composite
def mhsa(
    channels: Size,
    num_heads: Size | None = None,
    *,
    bias: Flag = True,
) -> Graph:
    """Return softmax attention over the positions of a map (multi-head self-attention, arXiv 1706.03762).

    y = Conv1x1(softmax(q k^T / sqrt(d)) v) for each head, where q, k and v are 1x1 convolutions of x. The cost grows
    with the square of the number of positions. Parameter names are those of timm's Attention2d.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        num_heads: the number of heads. Default: the largest power of two up to 8 that divides `channels`.
        bias: whether the convolutions have a bias. Default: True.

    Raises:
        SpecError: an argument is invalid, or `num_heads` does not divide `channels`.

    Example:
        >>> from maam import spec
        >>> layer = spec.mhsa(64)
        >>> layer.num_parameters, layer.macs((64, 7, 7))
        (16640, 1110144)
    """
    heads = _heads(channels, num_heads)
    children = {
        "qkv": Conv2d(in_channels=channels, out_channels=3 * channels, kernel_size=1, bias=bias),
        "queries": Rearrange(pattern=f"(n={heads} d) h w -> n (h w) d"),
        "keys": Rearrange(pattern=f"(n={heads} d) h w -> n d (h w)"),
        "values": Rearrange(pattern=f"(n={heads} d) h w -> n (h w) d"),
        "softmax": Softmax(axis="width"),
        "back": Rearrange(pattern="n l d -> n d l"),
        "proj": Conv2d(in_channels=channels, out_channels=channels, kernel_size=1, bias=bias),
    }
    formula = (
        f"y = qkv(x); q = queries(y[0:{channels}]); k = keys(y[{channels}:{2 * channels}]);"
        f"v = values(y[{2 * channels}:{3 * channels}]);"
        f"proj(like(back(softmax(q @ k * {_scale(channels, heads)}) @ v), x))"
    )
    return Graph(children=children, formula=formula, in_channels=channels)


@composite
def agent(
    channels: Size,
    num_heads: Size | None = None,
    agent_num: Size = 49,
    *,
    qkv_bias: Flag = False,
) -> Graph:
    """Return an agent attention layer (arXiv 2312.08874).

    y = W (softmax(q a^T) softmax(a k^T) v + Conv3x3(v)) for each head: the agents a, which are means of the queries
    over regions, read the map, and the positions read the agents. The cost grows linearly with the number of positions.
    Parameter names are those of the authors' code, without its position biases, which need maps of one size.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        num_heads: the number of heads. Default: the largest power of two up to 8 that divides `channels`.
        agent_num: the number of agents, a square. Default: 49.
        qkv_bias: whether the map to queries, keys and values has a bias. Default: False.

    Raises:
        SpecError: an argument is invalid, or `num_heads` does not divide `channels`, or `agent_num` is not a square.

    Example:
        >>> from maam import spec
        >>> spec.agent(64).num_parameters
        17088
    """
    heads, side = _heads(channels, num_heads), math.isqrt(agent_num)
    if side**2 != agent_num:
        raise ValueError(f"agent_num: expected a square such as 49, got {agent_num}")
    children = {
        "tokens": Rearrange(pattern="c h w -> (h w) c"),
        "qkv": Linear(in_features=channels, out_features=3 * channels, bias=qkv_bias),
        "channels": Rearrange(pattern="l c -> c l 1"),
        "pool": AdaptiveAvgPool2d(output_size=side),
        "agents": Rearrange(pattern=f"(n={heads} d) h w -> n (h w) d"),
        "turn": Rearrange(pattern="n a d -> n d a"),
        "queries": Rearrange(pattern=f"(n={heads} d) l 1 -> n l d"),
        "keys": Rearrange(pattern=f"(n={heads} d) l 1 -> n d l"),
        "values": Rearrange(pattern=f"(n={heads} d) l 1 -> n l d"),
        "softmax_a": Softmax(axis="width"),
        "softmax_q": Softmax(axis="width"),
        "back": Rearrange(pattern="n l d -> n d l"),
        "dwc": Conv2d(in_channels=channels, out_channels=channels, kernel_size=3, padding=1, groups=channels),
        "tokens_1": Rearrange(pattern="c h w -> (h w) c"),
        "proj": Linear(in_features=channels, out_features=channels),
        "channels_1": Rearrange(pattern="l c -> c l 1"),
    }
    scale = _scale(channels, heads)
    formula = (
        f"y = channels(qkv(tokens(x))); q = y[0:{channels}]; k = y[{channels}:{2 * channels}];"
        f"v = y[{2 * channels}:{3 * channels}]; a = agents(pool(like(q, x)));"
        f"r = softmax_a(a @ keys(k) * {scale}) @ values(v);"
        f"o = like(back(softmax_q(queries(q) @ turn(a) * {scale}) @ r), x) + dwc(like(v, x));"
        "like(channels_1(proj(tokens_1(o))), x)"
    )
    return Graph(children=children, formula=formula, in_channels=channels)


def _heads(channels: int, num_heads: int | None) -> int:
    if num_heads is None:
        return math.gcd(channels, 8)
    if channels % num_heads:
        raise ValueError(f"num_heads: {num_heads} heads do not divide {channels} channels")
    return num_heads


def _scale(channels: int, heads: int) -> float:
    """Return the factor of the logits: 1 / sqrt(channels of a head)."""
    return float((channels // heads) ** -0.5)
