"""MAAM, the Multi-Agent Aggregation Module (arXiv 2504.13574, section 3.1)."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from maam.errors import SpecError
from maam.spec.composites import OddSizes, Sizes, as_tuple, composite, one_each
from maam.spec.containers import Parallel, Resize, Sequential
from maam.spec.fields import AsInteger, Flag, OddSize, Size, plain_integer
from maam.spec.node import Node
from maam.spec.primitives import (
    Activation,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    ElementwiseName,
    Flatten,
    GlobalPool,
    Linear,
    MaxPool2d,
)

NormName = Literal["batch_norm", "identity"]


def convolution(
    in_channels: int, out_channels: int, kernel_size: int, *, depthwise: bool = False, bias: bool = False
) -> Node:
    """A convolution that keeps the map's size (odd kernel); depthwise: a depthwise one, then a 1x1."""
    padding = kernel_size // 2
    if not depthwise:
        return Conv2d(
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=kernel_size,
            padding=padding,
            bias=bias,
            init="kaiming_normal",
        )
    each = Conv2d(
        in_channels=in_channels,
        out_channels=in_channels,
        kernel_size=kernel_size,
        padding=padding,
        groups=in_channels,
        bias=False,
        init="kaiming_normal",
    )
    return Sequential(children={"depthwise": each, "pointwise": convolution(in_channels, out_channels, 1, bias=bias)})


def conv_norm_act(
    conv: Node, out_channels: int, act_layer: ElementwiseName, norm_layer: NormName, suffix: str = ""
) -> dict[str, Node]:
    """conv, bn and act as named children; where `norm_layer` is identity there is no bn."""
    norm = {f"bn{suffix}": BatchNorm2d(num_features=out_channels)} if norm_layer == "batch_norm" else {}
    return {f"conv{suffix}": conv, **norm, f"act{suffix}": Activation(function=act_layer)}


Fusion = Literal["softmax", "mean", "dynamic"]
NumAgents = Annotated[int, Field(strict=True, ge=1, le=256), AsInteger]
NUM_CONVS = 2


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
    fusion: Fusion = "softmax",
    reduce: Flag = True,
    depthwise: Flag = False,
    act_layer: ElementwiseName = "relu",
    norm_layer: NormName = "batch_norm",
) -> Sequential:
    """The Multi-Agent Aggregation Module: F = ReLU(BN(Conv1x1(sum_i softmax(alpha)_i AgentBlock_i(X)))).

    Equations 1 to 3 of the paper: (in_channels, H, W) to (out_channels, H', W'), H' = H // product of `pool`.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output; as many as the input has by default.
        hidden_channels: channels between the two convolutions of a branch; max(out_channels // 2, 1) by default.
        num_agents: number of parallel branches.
        kernel_sizes: odd kernel size of all branches, or one for each.
        scales: average pooling before the first convolution of all branches, or one for each; a branch with a
            scale above 1 is resized (nearest) to the size that a branch of scale 1 has.
        pool: max pooling after the last convolution, or one value for each of the two.
        fusion: "softmax" of one learnable scalar a branch (equation 2), "mean" of the branches, or "dynamic":
            softmax of a linear map of the globally average-pooled input.
        reduce: whether the 1x1 convolution, batch norm and activation of equation 3 follow.
        depthwise: each convolution becomes a depthwise one and a 1x1; norm and activation follow the 1x1.
        act_layer: activation by name.
        norm_layer: "batch_norm", or "identity": no normalisation, and convolutions with bias.

    Raises:
        SpecError: an argument is invalid or contradicts another.
    """
    out_channels = in_channels if out_channels is None else out_channels
    layer: dict[str, Any] = {"act_layer": act_layer, "norm_layer": norm_layer}
    branch = {"hidden_channels": hidden_channels, "pool": pool, "depthwise": depthwise, **layer}
    kernel_sizes = one_each("kernel_sizes", kernel_sizes, num_agents, "agents")
    scales = one_each("scales", scales, num_agents, "agents")
    agents = _agents(in_channels, out_channels, kernel_sizes, scales, **branch)
    children: dict[str, Node] = {"agents": _fuse(agents, fusion, in_channels)}
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
    depthwise: Flag = False,
    act_layer: ElementwiseName = "relu",
    norm_layer: NormName = "batch_norm",
) -> Sequential:
    """One branch (equation 1): two convolutions, each with batch norm, activation and max pooling.

    (in_channels, H, W) to (out_channels, H // product of pool, W // product of pool).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        hidden_channels: channels between the two convolutions; max(out_channels // 2, 1) by default.
        kernel_size: odd kernel size of both convolutions.
        scale: average pooling before the first convolution; above 1 the result is resized (nearest) to the size that
            a branch of scale 1 has.
        pool: max pooling after the last convolution, or one value for each of the two.
        depthwise: each convolution becomes a depthwise one and a 1x1; norm and activation follow the 1x1.
        act_layer: activation by name.
        norm_layer: "batch_norm", or "identity": no normalisation, and convolutions with bias.

    Raises:
        SpecError: an argument is invalid, or `pool` has neither one value nor two.
    """
    hidden_channels = max(out_channels // 2, 1) if hidden_channels is None else hidden_channels
    pools = as_tuple(pool)
    pools = (1,) * (NUM_CONVS - 1) + pools if len(pools) == 1 else one_each("pool", pools, NUM_CONVS, "convolutions")
    widths = (in_channels, hidden_channels, out_channels)
    children: dict[str, Node] = {"scale": AvgPool2d(kernel_size=scale)} if scale > 1 else {}
    for index in range(NUM_CONVS):
        conv = convolution(
            widths[index],
            widths[index + 1],
            kernel_size,
            depthwise=depthwise,
            bias=norm_layer == "identity",
        )
        children |= conv_norm_act(conv, widths[index + 1], act_layer, norm_layer, suffix=str(index + 1))
        if pools[index] > 1:
            children[f"pool{index + 1}"] = MaxPool2d(kernel_size=pools[index])
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
    """Feature compression (equation 3): ReLU(BN(Conv1x1(A))), (channels, H, W) to (out_channels, H, W).

    Args:
        channels: channels of the input.
        out_channels: channels of the output; as many as the input has by default.
        act_layer: activation by name.
        norm_layer: "batch_norm", or "identity": no normalisation, and a convolution with bias.

    Raises:
        SpecError: an argument is invalid.
    """
    out_channels = channels if out_channels is None else out_channels
    conv = convolution(channels, out_channels, 1, bias=norm_layer == "identity")
    return Sequential(children=conv_norm_act(conv, out_channels, act_layer, norm_layer))


def _agents(
    in_channels: int, out_channels: int, kernel_sizes: tuple[int, ...], scales: tuple[int, ...], **branch: Any
) -> dict[str, Node]:
    """A branch for each kernel size and scale, named by its number."""
    pairs = enumerate(zip(kernel_sizes, scales, strict=True))
    return {
        str(index): agent_block(in_channels, out_channels, kernel_size=kernel_size, scale=scale, **branch)
        for index, (kernel_size, scale) in pairs
    }


def _fuse(agents: dict[str, Node], fusion: Fusion, in_channels: int) -> Parallel:
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
    """A 3x3 convolution of stride 2, then MAAM layers that each halve the map.

    (in_channels, H, W) to (channels[-1] or out_channels, H', W'), H' = ceil(H / 2) // 2^(number of MAAM layers).

    Args:
        in_channels: channels of the input.
        channels: width of each MAAM layer; the first convolution has half of the first.
        out_channels: a 1x1 convolution with bias to so many channels follows; None: none does.
        num_agents: number of parallel branches.
        fusion: how the branches become one: "softmax" of one learnable scalar a branch, "mean", or "dynamic": softmax
            of a linear map of the globally average-pooled input.
        reduce: whether the 1x1 convolution, batch norm and activation of the reduce layer follow.
        depthwise: each convolution of a branch becomes a depthwise one and a 1x1.
        act_layer: activation by name.
        norm_layer: "batch_norm", or "identity": no normalisation, and convolutions with bias.

    Raises:
        SpecError: an argument is invalid.
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
    body: dict[str, Node] = {"stem": Sequential(children=conv_norm_act(conv, width, **layer))}
    layer |= {"num_agents": num_agents, "fusion": fusion, "reduce": reduce, "depthwise": depthwise}
    for index, wider in enumerate(channels):
        body[f"stage{index + 1}"] = maam(width, wider, pool=(1, 2), **layer)
        width = wider
    if out_channels is not None:
        body["proj"] = Conv2d(in_channels=width, out_channels=out_channels, kernel_size=1)
    return Sequential(children=body)


SMALLEST_WIDTH = 8


def patch_widths(patch_size: int, out_channels: int) -> tuple[int, ...]:
    """Widths for `maam_stem` that make one position of a patch: each twice the one before, up to `out_channels`.

    None is below 8. The patch is square; a stem halves it by its first convolution and by each MAAM layer.

    Raises:
        SpecError: `patch_size` is no power of two of at least 4, or `out_channels` no integer of at least 1.
    """
    patch_size, out_channels = plain_integer(patch_size), plain_integer(out_channels)
    if not isinstance(out_channels, int) or out_channels < 1:
        raise SpecError(f"out_channels: expected an integer of at least 1, got {out_channels!r}")
    if not isinstance(patch_size, int) or patch_size < 4 or patch_size & (patch_size - 1):
        raise SpecError(f"patch_size: expected a power of two of at least 4, got {patch_size}")
    count = patch_size.bit_length() - 2
    return tuple(max(out_channels >> (count - 1 - index), SMALLEST_WIDTH) for index in range(count))
