"""MAAM, the Multi-Agent Aggregation Module (arXiv 2504.13574, section 3.1), and its parts."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from maam._messages import is_count
from maam.errors import SpecError
from maam.spec.composites import OddSizes, Sizes, as_tuple, composite, one_each
from maam.spec.containers import Parallel, Resize, Sequential
from maam.spec.fields import AsInteger, Flag, OddSize, Size, plain_integer
from maam.spec.node import Node
from maam.spec.pooling import AvgPool2d, GlobalPool, MaxPool2d
from maam.spec.primitives import Activation, BatchNorm2d, Conv2d, ElementwiseName, Flatten, Linear

Fusion = Literal["softmax", "mean", "dynamic"]
NormName = Literal["batch_norm", "identity"]
NumAgents = Annotated[int, Field(strict=True, ge=1, le=256), AsInteger]
NUM_CONVS = 2
"""Convolutions in a branch."""
MIN_WIDTH = 8
"""The smallest width that `patch_widths` returns."""


@composite
def maam(
    in_channels: Size,
    out_channels: Size | None = None,
    *,
    hidden_channels: Size | None = None,
    num_agents: NumAgents = 3,
    kernel_sizes: OddSizes = 3,
    scales: Sizes = 1,
    pool: Sizes = 1,
    pool_before_norm: Flag = False,
    fusion: Fusion = "softmax",
    reduce: Flag = True,
    depthwise: Flag = False,
    act_layer: ElementwiseName = "relu",
    norm_layer: NormName = "batch_norm",
) -> Sequential:
    """Return a MAAM layer (Multi-Agent Aggregation Module): branches, their weighted sum and a 1x1 convolution.

    F = ReLU(BN(Conv1x1(sum_i softmax(alpha)_i AgentBlock_i(X)))), equations 1 to 3 of the paper (arXiv 2504.13574,
    section 3.1). `agent_block` returns one branch, and `reduce_layer` returns the 1x1 convolution.

    Shape:
        (N, in_channels, H, W) to (N, out_channels, H', W'), where H' = H // product of `pool` and the same for W'.

    Args:
        in_channels: the number of channels of the input.
        out_channels: the number of channels of the output. Default: `in_channels`.
        hidden_channels: the number of channels between the two convolutions of a branch. Default:
            max(out_channels // 2, 1).
        num_agents: the number of parallel branches, 1 to 256. Default: 3.
        kernel_sizes: the kernel size of the convolutions, odd; one value for all branches or a list with one for each.
            Default: 3.
        scales: the window of the average pooling in front of a branch; one value or one for each branch. 1 means no
            pooling. The output of a branch with a scale above 1 is resized (nearest) to the size of the others.
            Default: 1.
        pool: the window of max pooling after the last convolution of a branch, or a list with one value for each of the
            two convolutions. 1 means no pooling. Default: 1.
        pool_before_norm: whether the max pooling directly follows its convolution, in front of normalization and
            activation, which then have less to compute. Default: False.
        fusion: how the branches are weighted. "softmax": softmax of one learnable scalar per branch (equation 2).
            "mean": equal weights. "dynamic": softmax of a linear layer on the globally average-pooled input. Default:
            "softmax".
        reduce: whether a 1x1 convolution, normalization and activation follow the sum (equation 3). Default: True.
        depthwise: whether to replace each convolution of a branch with a depthwise and a 1x1 convolution. Default:
            False.
        act_layer: the activation: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish", "sigmoid",
            "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default: "relu".
        norm_layer: "batch_norm", or "identity" for no normalization and convolutions with bias. Default: "batch_norm".

    Raises:
        SpecError: an argument is invalid or contradicts another one.

    Example:
        >>> from maam import spec
        >>> layer = spec.maam(64, 128, pool=2)
        >>> layer.output_shape((64, 32, 32)), layer.num_parameters
        ((128, 16, 16), 349571)
    """
    out_channels = in_channels if out_channels is None else out_channels
    layer: dict[str, Any] = {"act_layer": act_layer, "norm_layer": norm_layer}
    branch: dict[str, Any] = {"hidden_channels": hidden_channels, "pool": pool, "pool_before_norm": pool_before_norm}
    branch |= {"depthwise": depthwise, **layer}
    kernel_sizes = one_each("kernel_sizes", kernel_sizes, num_agents, "agents")
    scales = one_each("scales", scales, num_agents, "agents")
    agents: dict[str, Node] = {
        str(index): agent_block(in_channels, out_channels, kernel_size=kernel_size, scale=scale, **branch)
        for index, (kernel_size, scale) in enumerate(zip(kernel_sizes, scales, strict=True))
    }
    children: dict[str, Node] = {"agents": _fused(agents, fusion, in_channels)}
    if reduce:
        children["reduce"] = reduce_layer(out_channels, **layer)
    return Sequential(children=children)


@composite
def agent_block(
    in_channels: Size,
    out_channels: Size,
    *,
    hidden_channels: Size | None = None,
    kernel_size: OddSize = 3,
    scale: Size = 1,
    pool: Sizes = 1,
    pool_before_norm: Flag = False,
    depthwise: Flag = False,
    act_layer: ElementwiseName = "relu",
    norm_layer: NormName = "batch_norm",
) -> Sequential:
    """Return a branch of MAAM: two convolutions, each followed by batch norm, activation and max pooling (equation 1).

    Shape:
        (N, in_channels, H, W) to (N, out_channels, H', W'), where H' = H // product of `pool` and the same for W'.

    Args:
        in_channels: the number of channels of the input.
        out_channels: the number of channels of the output.
        hidden_channels: the number of channels between the two convolutions. Default: max(out_channels // 2, 1).
        kernel_size: the kernel size of both convolutions, odd. Default: 3.
        scale: the window of the average pooling in front of the first convolution; 1 means no pooling. Above 1 the
            output is resized (nearest) to the size of a branch with scale 1. Default: 1.
        pool: the window of max pooling after the last convolution, or a list with one value for each of the two
            convolutions. 1 means no pooling. Default: 1.
        pool_before_norm: whether the max pooling directly follows its convolution, in front of normalization and
            activation, which then have less to compute. Default: False.
        depthwise: whether to replace each convolution with a depthwise and a 1x1 convolution. Default: False.
        act_layer: the activation: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish", "sigmoid",
            "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default: "relu".
        norm_layer: "batch_norm", or "identity" for no normalization and convolutions with bias. Default: "batch_norm".

    Raises:
        SpecError: an argument is invalid, or `pool` has more than two values.

    Example:
        >>> from maam import spec
        >>> spec.agent_block(3, 16, pool=(1, 2)).output_shape((3, 32, 32))
        (16, 16, 16)
    """
    hidden_channels = max(out_channels // 2, 1) if hidden_channels is None else hidden_channels
    pools = as_tuple(pool)
    pools = (1,) * (NUM_CONVS - 1) + pools if len(pools) == 1 else one_each("pool", pools, NUM_CONVS, "convolutions")
    widths = (in_channels, hidden_channels, out_channels)
    children: dict[str, Node] = {"scale": AvgPool2d(kernel_size=scale)} if scale > 1 else {}
    for index in range(NUM_CONVS):
        bias = norm_layer == "identity"
        conv = _conv(widths[index], widths[index + 1], kernel_size, depthwise=depthwise, bias=bias)
        layers = _conv_norm_act(conv, widths[index + 1], act_layer, norm_layer, suffix=str(index + 1))
        if pools[index] > 1:
            layers[f"pool{index + 1}"] = MaxPool2d(kernel_size=pools[index])
        if pool_before_norm:
            order = (f"{name}{index + 1}" for name in ("conv", "pool", "bn", "act"))
            layers = {name: layers[name] for name in order if name in layers}
        children |= layers
    if scale > 1:
        return Resize(children=children, stride=math.prod(pools))
    return Sequential(children=children)


@composite
def reduce_layer(
    channels: Size,
    out_channels: Size | None = None,
    *,
    act_layer: ElementwiseName = "relu",
    norm_layer: NormName = "batch_norm",
) -> Sequential:
    """Return the reduce layer of MAAM: ReLU(BN(Conv1x1(A))), the feature compression of equation 3.

    Shape:
        (N, channels, H, W) to (N, out_channels, H, W).

    Args:
        channels: the number of channels of the input.
        out_channels: the number of channels of the output. Default: `channels`.
        act_layer: the activation: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish", "sigmoid",
            "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default: "relu".
        norm_layer: "batch_norm", or "identity" for no normalization and a convolution with bias. Default: "batch_norm".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> from maam import spec
        >>> spec.reduce_layer(128, 64).output_shape((128, 16, 16))
        (64, 16, 16)
    """
    out_channels = channels if out_channels is None else out_channels
    conv = _conv(channels, out_channels, 1, bias=norm_layer == "identity")
    return Sequential(children=_conv_norm_act(conv, out_channels, act_layer, norm_layer))


@composite
def maam_stem(
    in_channels: Size,
    channels: Sizes,
    out_channels: Size | None = None,
    *,
    num_agents: NumAgents = 3,
    fusion: Fusion = "softmax",
    reduce: Flag = True,
    depthwise: Flag = True,
    act_layer: ElementwiseName = "relu",
    norm_layer: NormName = "batch_norm",
) -> Sequential:
    """Return a stem of a 3x3 convolution with stride 2, followed by MAAM layers that each halve height and width.

    It replaces the patch embedding of a vision transformer; `patch_widths` returns suitable `channels`. The paper does
    not describe this layer.

    Shape:
        (N, in_channels, H, W) to (N, out_channels, H', W'), where H' = ceil(H / 2) // 2^k for k MAAM layers, and the
        same for W'. Without `out_channels`, the output has channels[-1] channels.

    Args:
        in_channels: the number of channels of the input.
        channels: the number of channels of each MAAM layer. The first convolution has half of the first value.
        out_channels: the number of channels of a final 1x1 convolution with bias. Default: no such convolution.
        num_agents: the number of parallel branches of each MAAM layer, 1 to 256. Default: 3.
        fusion: how the branches are weighted. "softmax": softmax of one learnable scalar per branch. "mean": equal
            weights. "dynamic": softmax of a linear layer on the globally average-pooled input. Default: "softmax".
        reduce: whether a 1x1 convolution, normalization and activation follow the sum of the branches. Default: True.
        depthwise: whether to replace each convolution of a branch with a depthwise and a 1x1 convolution. Default:
            True.
        act_layer: the activation: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish", "sigmoid",
            "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default: "relu".
        norm_layer: "batch_norm", or "identity" for no normalization and convolutions with bias. Default: "batch_norm".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> from maam import spec
        >>> stem = spec.maam_stem(3, spec.patch_widths(16, 192), 192)
        >>> stem.output_shape((3, 224, 224))
        (192, 14, 14)
    """
    channels = as_tuple(channels)
    width = max(channels[0] // 2, 1)
    conv = Conv2d(
        in_channels=in_channels,
        out_channels=width,
        kernel_size=3,
        stride=2,
        padding=1,
        bias=norm_layer != "batch_norm",
        init="kaiming_normal",
    )
    layer: dict[str, Any] = {"act_layer": act_layer, "norm_layer": norm_layer}
    body: dict[str, Node] = {"stem": Sequential(children=_conv_norm_act(conv, width, **layer))}
    layer |= {"num_agents": num_agents, "fusion": fusion, "reduce": reduce, "depthwise": depthwise}
    for index, wider in enumerate(channels):
        body[f"stage{index + 1}"] = maam(width, wider, pool=(1, 2), **layer)
        width = wider
    if out_channels is not None:
        body["proj"] = Conv2d(in_channels=width, out_channels=out_channels, kernel_size=1)
    return Sequential(children=body)


def patch_widths(patch_size: int, out_channels: int) -> tuple[int, ...]:
    """Return `channels` for a `maam_stem` that turns each patch of an image into one position.

    Each width is twice the previous one, at most `out_channels` and at least 8.

    Args:
        patch_size: height and width of a patch in pixels, a power of two of at least 4.
        out_channels: the number of channels of the stem's output.

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> from maam import spec
        >>> spec.patch_widths(16, 192)
        (48, 96, 192)
    """
    patch_size, out_channels = plain_integer(patch_size), plain_integer(out_channels)
    if not is_count(out_channels):
        raise SpecError(f"out_channels: expected an integer of at least 1, got {out_channels!r}")
    if not isinstance(patch_size, int) or patch_size < 4 or patch_size & (patch_size - 1):
        raise SpecError(f"patch_size: expected a power of two of at least 4, got {patch_size}")
    count = patch_size.bit_length() - 2
    return tuple(max(out_channels >> (count - 1 - index), MIN_WIDTH) for index in range(count))


def _conv(
    in_channels: int, out_channels: int, kernel_size: int, *, depthwise: bool = False, bias: bool = False
) -> Node:
    """Return a convolution that keeps height and width; a depthwise and a 1x1 one if `depthwise`."""
    options: dict[str, Any] = {
        "in_channels": in_channels,
        "kernel_size": kernel_size,
        "padding": kernel_size // 2,
        "init": "kaiming_normal",
    }
    if not depthwise:
        return Conv2d(out_channels=out_channels, bias=bias, **options)
    each = Conv2d(out_channels=in_channels, groups=in_channels, bias=False, **options)
    return Sequential(children={"depthwise": each, "pointwise": _conv(in_channels, out_channels, 1, bias=bias)})


def _conv_norm_act(
    conv: Node, out_channels: int, act_layer: ElementwiseName, norm_layer: NormName, suffix: str = ""
) -> dict[str, Node]:
    norm = {f"bn{suffix}": BatchNorm2d(num_features=out_channels)} if norm_layer == "batch_norm" else {}
    return {f"conv{suffix}": conv, **norm, f"act{suffix}": Activation(function=act_layer)}


def _fused(agents: dict[str, Node], fusion: Fusion, in_channels: int) -> Parallel:
    if fusion == "softmax":
        return Parallel(children=agents, merge="softmax")
    if fusion == "mean":
        return Parallel(children=agents, merge="weighted", weights=(1 / len(agents),) * len(agents))
    weighting = Sequential(
        children={
            "pool": GlobalPool(),
            "flatten": Flatten(),
            "fc": Linear(in_features=in_channels, out_features=len(agents)),
            "softmax": Activation(function="softmax"),
        }
    )
    return Parallel(children=agents, merge="dynamic", weighting=weighting)
