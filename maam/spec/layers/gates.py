"""Gates: layers that multiply a feature map by attention weights computed from it, and keep its shape.

MAF, MAF_C and MAF_B are from "Multiple channel-spatial residual attentive patterns for lightweight networks in image
classification" and the code of its authors. SE (arXiv 1709.01507) and CBAM (arXiv 1807.06521) serve as baselines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from maam.spec.composites import CheckedAs, composite
from maam.spec.containers import Parallel, Residual, Scale, Sequential
from maam.spec.fields import AsNumber, Flag, Ordered, Size
from maam.spec.node import Node
from maam.spec.pooling import GlobalPool
from maam.spec.primitives import Activation, BatchNorm2d, Conv2d, ElementwiseName, Flatten, Linear, Unflatten

PoolType = Literal["avg", "std", "max"]


def as_names(value: PoolType | Sequence[PoolType]) -> Sequence[PoolType]:
    """Return several statistics, also for one."""
    return (value,) if isinstance(value, str) else value


def _each_once(pool_types: tuple[PoolType, ...]) -> tuple[PoolType, ...]:
    if not pool_types:
        raise ValueError("expected at least one of avg, std, max")
    if len(set(pool_types)) < len(pool_types):
        raise ValueError(f"expected each statistic at most once, got {', '.join(pool_types)}")
    return pool_types


PoolTypes = Annotated[
    PoolType | Sequence[PoolType],
    CheckedAs(
        Annotated[
            tuple[PoolType, ...],
            Ordered,
            BeforeValidator(as_names),
            AfterValidator(_each_once),
        ]
    ),
]
Ratio = Annotated[float, Field(gt=0, le=1, strict=True), AsNumber]
GateName = Literal["sigmoid", "hard_sigmoid", "tanh"]
SPATIAL_KERNEL = 7
SPATIAL_MOMENTUM = 0.01
BAM_REDUCTION = 16
BAM_DILATION = 4


@composite
def maf(
    channels: Size,
    rd_ratio: Ratio = 1 / 16,
    rd_channels: Size | None = None,
    pool_types: PoolTypes = ("avg", "std"),
    *,
    act_layer: ElementwiseName = "relu",
    gate_layer: GateName = "sigmoid",
) -> Scale:
    """Return a MAF layer: channel attention from accumulated features.

    y = x * sigmoid(W2 ReLU(W1 [avg(x), std(x)] + b1) + b2), where avg and std are the mean and the standard deviation
    of each channel. Source: the MAF paper and its published code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron as a fraction of `channels`, above 0 and at most 1. The width is rounded
            down and at least 1. Other libraries use the inverse, a reduction of 16 instead of 1 / 16. Default: 1 / 16.
        rd_channels: the width of the perceptron; replaces `rd_ratio`.
        pool_types: the statistics of each channel over height and width: "avg", "std" (unbiased standard deviation),
            "max", or a list of them without repetition. Default: ("avg", "std").
        act_layer: the activation of the perceptron: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish",
            "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default:
            "relu".
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid, or a statistic is repeated.

    Example:
        >>> from maam import spec
        >>> layer = spec.maf(64, rd_ratio=1 / 16)
        >>> layer.output_shape((64, 32, 32)), layer.num_parameters
        ((64, 32, 32), 836)
    """
    pools = as_names(pool_types)
    gate = _perceptron(channels, reduced_width(channels, rd_ratio, rd_channels), pools, act_layer)
    return Scale(children={**gate, "gate": Activation(function=gate_layer)})


@composite
def mafc(
    channels: Size,
    rd_ratio: Ratio = 1 / 16,
    rd_channels: Size | None = None,
    pool_types: PoolTypes = ("avg", "std"),
    *,
    spatial: Flag = True,
    act_layer: ElementwiseName = "relu",
    gate_layer: GateName = "sigmoid",
) -> Sequential:
    """Return a MAF_C layer: the channel gate MAF followed by a spatial gate, in the order of CBAM.

    y = z * sigmoid(BN(Conv7x7([avg(z), std(z)]))), where z = MAF(x), and avg and std are taken over the channels.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron as a fraction of `channels`, above 0 and at most 1. The width is rounded
            down and at least 1. Other libraries use the inverse, a reduction of 16 instead of 1 / 16. Default: 1 / 16.
        rd_channels: the width of the perceptron; replaces `rd_ratio`.
        pool_types: the statistics: "avg", "std" (unbiased standard deviation), "max", or a list of them without
            repetition. The channel gate takes them over height and width, the spatial gate over the channels. Default:
            ("avg", "std").
        spatial: whether to add the spatial gate. Default: True.
        act_layer: the activation of the perceptron: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish",
            "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default:
            "relu".
        gate_layer: the function that bounds both gates: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid, or a statistic is repeated.

    Example:
        >>> from maam import spec
        >>> layer = spec.mafc(64)
        >>> list(layer.children), layer.num_parameters
        (['ChannelGate', 'SpatialGate'], 936)
    """
    channel = maf(channels, rd_ratio, rd_channels, pool_types, act_layer=act_layer, gate_layer=gate_layer)
    children: dict[str, Node] = {"ChannelGate": channel}
    if spatial:
        children["SpatialGate"] = _spatial_gate(as_names(pool_types), gate_layer)
    return Sequential(children=children)


@composite
def mafb(
    channels: Size,
    rd_ratio: Ratio = 1 / 16,
    rd_channels: Size | None = None,
    pool_types: PoolTypes = ("avg", "std"),
    *,
    act_layer: ElementwiseName = "relu",
    gate_layer: GateName = "sigmoid",
) -> Residual:
    """Return a MAF_B layer: channel and spatial attention added to the input, as in BAM.

    y = x * (1 + sigmoid(C(x) + S(x))), where C is the perceptron of MAF and S the dilated convolutions of BAM (arXiv
    1807.06514; reduction 16, dilation 4). The authors published no code for MAF_B; this follows the text of the paper.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron as a fraction of `channels`, above 0 and at most 1. The width is rounded
            down and at least 1. Other libraries use the inverse, a reduction of 16 instead of 1 / 16. Default: 1 / 16.
        rd_channels: the width of the perceptron; replaces `rd_ratio`.
        pool_types: the statistics of each channel over height and width: "avg", "std" (unbiased standard deviation),
            "max", or a list of them without repetition. Default: ("avg", "std").
        act_layer: the activation of the perceptron and the dilated branch: "relu", "relu6", "leaky_relu", "elu",
            "gelu", "silu", "hard_swish", "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a
            class such as nn.ReLU. Default: "relu".
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid, or a statistic is repeated.

    Example:
        >>> from maam import spec
        >>> spec.mafb(64).output_shape((64, 32, 32))
        (64, 32, 32)
    """
    pools = as_names(pool_types)
    channel = _perceptron(channels, reduced_width(channels, rd_ratio, rd_channels), pools, act_layer)
    both = {"ChannelGate": Sequential(children=channel), "SpatialGate": _dilated_branch(channels, act_layer)}
    gate = Scale(children={"logits": Parallel(children=both), "gate": Activation(function=gate_layer)})
    return Residual(children={"attention": gate})


@composite
def se(
    channels: Size,
    rd_ratio: Ratio = 1 / 16,
    rd_channels: Size | None = None,
    *,
    act_layer: ElementwiseName = "relu",
    gate_layer: GateName = "sigmoid",
) -> Scale:
    """Return an SE layer (squeeze and excitation, arXiv 1709.01507).

    y = x * sigmoid(W2 ReLU(W1 avg(x) + b1) + b2), where avg is the mean of each channel.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron as a fraction of `channels`, above 0 and at most 1. The width is rounded
            down and at least 1. Other libraries use the inverse, a reduction of 16 instead of 1 / 16. Default: 1 / 16.
        rd_channels: the width of the perceptron; replaces `rd_ratio`.
        act_layer: the activation of the perceptron: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish",
            "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default:
            "relu".
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> from maam import spec
        >>> spec.se(64, rd_channels=8).num_parameters
        1096
    """
    children = {
        "pool": GlobalPool(),
        **perceptron(channels, reduced_width(channels, rd_ratio, rd_channels), act_layer),
        "gate": Activation(function=gate_layer),
    }
    return Scale(children=children)


@composite
def cbam(
    channels: Size,
    rd_ratio: Ratio = 1 / 16,
    rd_channels: Size | None = None,
    *,
    spatial: Flag = True,
    act_layer: ElementwiseName = "relu",
    gate_layer: GateName = "sigmoid",
) -> Sequential:
    """Return a CBAM layer (arXiv 1807.06521): a channel gate followed by a spatial gate.

    y = z * sigmoid(BN(Conv7x7([max(z), avg(z)]))), where z = x * sigmoid(MLP(avg(x)) + MLP(max(x))). The two statistics
    share the perceptron MLP, which is two 1x1 convolutions.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron as a fraction of `channels`, above 0 and at most 1. The width is rounded
            down and at least 1. Other libraries use the inverse, a reduction of 16 instead of 1 / 16. Default: 1 / 16.
        rd_channels: the width of the perceptron; replaces `rd_ratio`.
        spatial: whether to add the spatial gate. Default: True.
        act_layer: the activation of the perceptron: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish",
            "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default:
            "relu".
        gate_layer: the function that bounds both gates: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> from maam import spec
        >>> spec.cbam(64, spatial=False).num_parameters
        580
    """
    pools = Parallel(children={"avg": GlobalPool(), "max": GlobalPool(function="max")}, merge="stack")
    channel = Scale(
        children={
            "pools": pools,
            **perceptron(channels, reduced_width(channels, rd_ratio, rd_channels), act_layer),
            "sum": GlobalPool(function="sum"),
            "gate": Activation(function=gate_layer),
        }
    )
    children: dict[str, Node] = {"ChannelGate": channel}
    if spatial:
        children["SpatialGate"] = _spatial_gate(("max", "avg"), gate_layer)
    return Sequential(children=children)


def reduced_width(channels: int, rd_ratio: float, rd_channels: int | None) -> int:
    """Return `rd_channels`, or the width that `rd_ratio` gives, at least 1."""
    return max(int(channels * rd_ratio), 1) if rd_channels is None else rd_channels


def _statistics(pool_types: Sequence[PoolType], axis: Literal["spatial", "channels"]) -> Node:
    """Return the statistics of a map, concatenated; "spatial" takes them over H and W, "channels" over C."""
    pools: dict[str, Node] = {name: GlobalPool(function=name, axis=axis) for name in pool_types}
    return Parallel(children=pools, merge="concat")


def _perceptron(
    channels: int, width: int, pool_types: Sequence[PoolType], act_layer: ElementwiseName
) -> dict[str, Node]:
    """Return the pooling and the perceptron of MAF: (channels, H, W) to logits (channels, 1, 1)."""
    mlp = {
        "0": Flatten(),
        "1": Linear(in_features=len(pool_types) * channels, out_features=width),
        "2": Activation(function=act_layer),
        "3": Linear(in_features=width, out_features=channels),
    }
    return {"pools": _statistics(pool_types, "spatial"), "mlp": Sequential(children=mlp), "unflatten": Unflatten()}


def _spatial_gate(pool_types: Sequence[PoolType], gate_layer: GateName) -> Scale:
    """Return x * gate(BN(Conv7x7(statistics of x over the channels)))."""
    return Scale(
        children={
            "pools": _statistics(pool_types, "channels"),
            "spatial": statistics_conv(len(pool_types)),
            "gate": Activation(function=gate_layer),
        }
    )


def statistics_conv(count: int) -> Sequential:
    """Return a 7x7 convolution and batch norm of statistics of the positions: (count, H, W) to (1, H, W)."""
    conv = Conv2d(
        in_channels=count,
        out_channels=1,
        kernel_size=SPATIAL_KERNEL,
        padding=SPATIAL_KERNEL // 2,
        bias=False,
    )
    return Sequential(children={"conv": conv, "bn": BatchNorm2d(num_features=1, momentum=SPATIAL_MOMENTUM)})


def perceptron(channels: int, width: int, act_layer: ElementwiseName) -> dict[str, Node]:
    """Return a perceptron of two 1x1 convolutions that keeps the shape."""
    return {
        "fc1": Conv2d(in_channels=channels, out_channels=width, kernel_size=1),
        "act": Activation(function=act_layer),
        "fc2": Conv2d(in_channels=width, out_channels=channels, kernel_size=1),
    }


def _dilated_branch(channels: int, act_layer: ElementwiseName) -> Sequential:
    """Return the spatial branch of BAM: (channels, H, W) to logits (1, H, W)."""
    width = max(channels // BAM_REDUCTION, 1)
    children: dict[str, Node] = {}
    for index, (inputs, kernel_size) in enumerate(((channels, 1), (width, 3), (width, 3))):
        children |= {
            f"conv{index}": Conv2d(
                in_channels=inputs,
                out_channels=width,
                kernel_size=kernel_size,
                padding=BAM_DILATION if kernel_size > 1 else 0,
                dilation=BAM_DILATION if kernel_size > 1 else 1,
                bias=False,
            ),
            f"bn{index}": BatchNorm2d(num_features=width),
            f"act{index}": Activation(function=act_layer),
        }
    children["conv3"] = Conv2d(in_channels=width, out_channels=1, kernel_size=1)
    return Sequential(children=children)
