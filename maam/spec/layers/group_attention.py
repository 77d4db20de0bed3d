"""Attention in groups or ranks of channels: SGE, shuffle attention, EMA and MRAP.

Each layer keeps the shape of a feature map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from maam.spec.composites import CheckedAs, composite
from maam.spec.containers import Sequential
from maam.spec.fields import AsNumber, Ordered, Size
from maam.spec.graph import Graph
from maam.spec.layers.gates import GateName, PoolTypes, Ratio, as_names, reduced_width, statistics_conv
from maam.spec.layers.spatial_attention import strips
from maam.spec.node import Node
from maam.spec.pooling import GlobalPool, Softmax, TopK
from maam.spec.primitives import Activation, Conv2d, ElementwiseName, Flatten, GroupNorm, Linear, Unflatten
from maam.spec.rearrange import Rearrange

SGE_EPSILON = 1e-5
Share = Annotated[float, Field(ge=0, le=1, strict=True), AsNumber]
Rates = Annotated[Sequence[float] | None, CheckedAs(Annotated[tuple[Share, ...], Ordered] | None)]


@composite
def sge(
    channels: Size,
    groups: Size | None = None,
    *,
    gate_layer: GateName = "sigmoid",
) -> Graph:
    """Return an SGE layer (spatial group-wise enhance, arXiv 1905.09646).

    In each group of channels, the similarity of every position with the mean of the map is normalized over the
    positions, scaled by two learnable numbers, and bounded by the gate, which multiplies the group. Parameter names are
    those of the authors' code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        groups: the number of groups of channels. Default: the largest power of two up to 64 that divides `channels`.
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid, or `groups` does not divide `channels`.

    Example:
        >>> from maam import spec
        >>> spec.sge(64, groups=8).num_parameters
        16
    """
    groups = _groups(channels, groups, 64)
    children = {
        "mean": GlobalPool(),
        "similarity": GlobalPool(function="sum", axis="channels"),
        "average": GlobalPool(),
        "deviation": GlobalPool(function="std"),
        "gate": Activation(function=gate_layer),
        "repeat": Rearrange(pattern=f"g h w -> (g c={channels // groups}) h w"),
    }
    formula = (
        f"f = fold(x, {groups}); s = similarity(f * mean(f));"
        f"t = unfold((s - average(s)) / (deviation(s) + {SGE_EPSILON}), {groups});"
        "x * repeat(gate(t * weight + bias))"
    )
    arrays = {"weight": ((groups, 1, 1), 0.0), "bias": ((groups, 1, 1), 1.0)}
    return Graph(children=children, formula=formula, arrays=arrays, in_channels=channels)


@composite
def shuffle(
    channels: Size,
    groups: Size | None = None,
    *,
    gate_layer: GateName = "sigmoid",
) -> Graph:
    """Return a shuffle attention layer (SA-Net, arXiv 2102.00240).

    Half of each group of channels gets channel attention, x * gate(a avg(x) + b), the other half spatial attention, x *
    gate(a GroupNorm(x) + b); then the channels are shuffled. Parameter names are those of the authors' code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        groups: the number of groups of channels. Default: the largest power of two up to 64 that divides half of
            `channels`.
        gate_layer: the function that bounds the gates: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid, or twice `groups` does not divide `channels`.

    Example:
        >>> from maam import spec
        >>> spec.shuffle(64, groups=8).num_parameters
        24
    """
    if channels % 2:
        raise ValueError(f"channels: expected an even number, because every group is halved, got {channels}")
    groups = _groups(channels // 2, groups, 64, "pairs of channels")
    half = channels // (2 * groups)
    children = {
        "mean": GlobalPool(),
        "gate": Activation(function=gate_layer),
        "gn": GroupNorm(num_groups=half, num_channels=half),
        "gate_s": Activation(function=gate_layer),
        "shuffle": Rearrange(pattern="(g=2 c) h w -> (c g) h w"),
    }
    formula = (
        f"f = fold(x, {groups}); a = f[0:{half}]; b = f[{half}:{2 * half}];"
        "c = a * gate(cweight * mean(a) + cbias); s = b * gate_s(sweight * gn(b) + sbias);"
        f"shuffle(unfold(concat(c, s), {groups}))"
    )
    values = {"cweight": 0.0, "cbias": 1.0, "sweight": 0.0, "sbias": 1.0}
    arrays = {name: ((half, 1, 1), value) for name, value in values.items()}
    return Graph(children=children, formula=formula, arrays=arrays, in_channels=channels)


@composite
def ema(
    channels: Size,
    groups: Size | None = None,
    *,
    gate_layer: GateName = "sigmoid",
) -> Graph:
    """Return an EMA layer (efficient multi-scale attention, arXiv 2305.13563).

    Each group of channels gets the gates of coordinate attention in one branch and a 3x3 convolution in the other; the
    softmax of the channel means of each branch weights the map of the other one, and the sum of both maps is the gate.
    Parameter names are those of the authors' code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        groups: the number of groups of channels. Default: the largest power of two up to 8 that divides `channels`.
        gate_layer: the function that bounds the gates: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid, or `groups` does not divide `channels`.

    Example:
        >>> from maam import spec
        >>> spec.ema(64).num_parameters
        672
    """
    groups = _groups(channels, groups, 8)
    width = channels // groups
    names = ("gate_h", "gate_w", "gate")
    children = {
        **strips(),
        "conv1x1": Conv2d(in_channels=width, out_channels=width, kernel_size=1),
        "gn": GroupNorm(num_groups=width, num_channels=width),
        "conv3x3": Conv2d(in_channels=width, out_channels=width, kernel_size=3, padding=1),
        **{name: Activation(function=gate_layer) for name in names},
        **{f"mean{index}": GlobalPool() for index in (1, 2)},
        **{f"softmax{index}": Softmax(axis="channels") for index in (1, 2)},
        **{f"total{index}": GlobalPool(function="sum", axis="channels") for index in (1, 2)},
    }
    formula = (
        f"f = fold(x, {groups}); h = pool_h(f); w = turn(pool_w(f)); s = conv1x1(stack(h, w));"
        "a = gn(f * gate_h(first(s, h)) * gate_w(back(last(s, w)))); b = conv3x3(f);"
        "m = total1(softmax1(mean1(a)) * b) + total2(softmax2(mean2(b)) * a);"
        f"unfold(f * gate(m), {groups})"
    )
    return Graph(children=children, formula=formula, in_channels=channels)


@composite
def mrap(
    channels: Size,
    rd_ratio: Ratio = 1 / 16,
    rd_channels: Size | None = None,
    pool_types: PoolTypes = ("avg", "std"),
    rates: Rates = None,
    *,
    act_layer: ElementwiseName = "relu",
    gate_layer: GateName = "sigmoid",
) -> Sequential:
    """Return an MRAP layer (multiple residual attentive patterns), by the authors of MAF. SRAP is the same module.

    y = x * (1 + gate(relu(P(m) + gate(c)) * (S(x) + gate(s)))), where c and s are the products of the statistics of
    each channel and of each position, P is a perceptron, and S a 7x7 convolution with batch norm of the statistics of
    each position. m mixes the largest channel statistics of each kind, in descending order. Parameter names are those
    of the authors' code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron as a fraction of `channels`, above 0 and at most 1. The width is rounded
            down and at least 1. Default: 1 / 16.
        rd_channels: the width of the perceptron; replaces `rd_ratio`.
        pool_types: two or three of the statistics "avg", "std" (unbiased standard deviation) and "max". Default:
            ("avg", "std").
        rates: the share of `channels` that m takes of each statistic, with a sum of 1; shares are rounded down, and the
            last statistic fills the rest. Default: equal shares.
        act_layer: the activation of the perceptron: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish",
            "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default:
            "relu".
        gate_layer: the function that bounds the gates: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid, or `pool_types` has not two or three statistics, or `rates` do not fit them.

    Example:
        >>> from maam import spec
        >>> spec.mrap(64).num_parameters
        680
    """
    pools = as_names(pool_types)
    counts = _shares(channels, pools, rates)
    width = reduced_width(channels, rd_ratio, rd_channels)
    children, top = _ranked(counts)
    children |= {f"c_{name}": GlobalPool(function=name) for name in pools}
    children |= {f"s_{name}": GlobalPool(function=name, axis="channels") for name in pools}
    mlp = {
        "0": Flatten(),
        "1": Linear(in_features=channels, out_features=width),
        "2": Activation(function=act_layer),
        "3": Linear(in_features=width, out_features=channels),
    }
    children |= {
        "mlp": Sequential(children=mlp),
        "unflatten": Unflatten(),
        "gate_c": Activation(function=gate_layer),
        "relu": Activation(function="relu"),
        "spatialConv": statistics_conv(len(pools)),
        "gate_s": Activation(function=gate_layer),
        "gate": Activation(function=gate_layer),
    }
    channel = [f"c{index}" for index in range(len(pools))]
    position = [f"s{index}" for index in range(len(pools))]
    lines = [f"c{index} = c_{name}(x); s{index} = s_{name}(x)" for index, name in enumerate(pools)]
    formula = "; ".join(
        [
            *lines,
            *top,
            f"g = relu(unflatten(mlp(m)) + gate_c({' * '.join(channel)}))",
            f"s = spatialConv(concat({', '.join(position)})) + gate_s({' * '.join(position)})",
            "x * (1 + gate(g * s))",
        ]
    )
    return Sequential(children={"ChannelGate": Graph(children=children, formula=formula, in_channels=channels)})


def _groups(channels: int, groups: int | None, most: int, what: str = "channels") -> int:
    """Return the number of groups, after checking that it divides the channels."""
    if groups is None:
        return math.gcd(most, channels)
    if channels % groups:
        raise ValueError(f"groups: {groups} groups do not divide {channels} {what}")
    return groups


def _shares(channels: int, pools: Sequence[str], rates: Sequence[float] | None) -> list[int]:
    """Return how many values of each statistic MRAP takes."""
    if len(pools) not in (2, 3):
        raise ValueError(f"pool_types: expected two or three statistics, got {', '.join(pools)}")
    shares = [1 / len(pools)] * len(pools) if rates is None else list(rates)
    if len(shares) != len(pools):
        raise ValueError(f"rates: expected one for each of {len(pools)} statistics, got {len(shares)}")
    if abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"rates: expected a sum of 1, got {sum(shares):g}")
    counts = [int(share * channels) for share in shares[:-1]]
    return [*counts, channels - sum(counts)]


def _ranked(counts: Sequence[int]) -> tuple[dict[str, Node], list[str]]:
    """Return the layers and formulas that mix the largest counts[i] values of each c_i: one by one, then the rest."""
    shared = min(counts)
    children: dict[str, Node] = {f"top{index}": TopK(k=count) for index, count in enumerate(counts) if count}
    formulas = [f"t{index} = top{index}(c{index})" for index, count in enumerate(counts) if count]
    parts = [f"t{index}[{shared}:{count}]" for index, count in enumerate(counts) if count > shared]
    if shared:
        children["mix"] = Rearrange(pattern=f"(s={len(counts)} c) h w -> (c s) h w")
        parts.insert(0, f"mix(concat({', '.join(f't{index}[0:{shared}]' for index in range(len(counts)))}))")
    return children, [*formulas, f"m = concat({', '.join(parts)})"]
