"""Gates: layers that scale a map by attention computed from it, and keep its shape.

MAF, MAF_C and MAF_B follow the paper on accumulated features and the code that its authors published; SE (arXiv
1709.01507) and CBAM (arXiv 1807.06521) are controls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from maam.spec.composites import CheckedAs, composite
from maam.spec.containers import Parallel, Residual, Scale, Sequential
from maam.spec.fields import AsNumber, Flag, Ordered, Size
from maam.spec.node import Node
from maam.spec.primitives import (
    Activation,
    BatchNorm2d,
    Conv2d,
    ElementwiseName,
    Flatten,
    GlobalPool,
    Linear,
    Unflatten,
)

PoolType = Literal["avg", "std", "max"]


def _as_names(value: PoolType | Sequence[PoolType]) -> Sequence[PoolType]:
    return (value,) if isinstance(value, str) else value


def _each_once(pool_types: tuple[PoolType, ...]) -> tuple[PoolType, ...]:
    if not pool_types:
        raise ValueError("expected at least one of avg, std, max")
    if len(set(pool_types)) < len(pool_types):
        raise ValueError(f"each at most once, got {', '.join(pool_types)}")
    return pool_types


PoolTypes = Annotated[
    PoolType | Sequence[PoolType],
    CheckedAs(
        Annotated[
            tuple[PoolType, ...],
            Ordered,
            BeforeValidator(_as_names),
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


def hidden_width(channels: int, rd_ratio: float, rd_channels: int | None) -> int:
    """The hidden width of a gate's perceptron."""
    return max(int(channels * rd_ratio), 1) if rd_channels is None else rd_channels


def statistics(pool_types: Sequence[PoolType], axis: Literal["spatial", "channels"]) -> Node:
    """The statistics of a map along an axis, side by side."""
    pools: dict[str, Node] = {name: GlobalPool(function=name, axis=axis) for name in pool_types}
    return Parallel(children=pools, merge="concat")


def perceptron(
    channels: int, width: int, pool_types: Sequence[PoolType], act_layer: ElementwiseName
) -> dict[str, Node]:
    """Pooling and deformed-bottleneck recalibration: (channels, H, W) to logits (channels, 1, 1)."""
    mlp = {
        "0": Flatten(),
        "1": Linear(in_features=len(pool_types) * channels, out_features=width),
        "2": Activation(function=act_layer),
        "3": Linear(in_features=width, out_features=channels),
    }
    return {"pools": statistics(pool_types, "spatial"), "mlp": Sequential(children=mlp), "unflatten": Unflatten()}


def spatial_gate(pool_types: Sequence[PoolType], gate_layer: GateName) -> Scale:
    """The map times gate(BN(Conv7x7(statistics over the channels))), (C, H, W) to the same shape."""
    conv = Conv2d(
        in_channels=len(pool_types),
        out_channels=1,
        kernel_size=SPATIAL_KERNEL,
        padding=SPATIAL_KERNEL // 2,
        bias=False,
    )
    spatial = {"conv": conv, "bn": BatchNorm2d(num_features=1, momentum=SPATIAL_MOMENTUM)}
    return Scale(
        children={
            "pools": statistics(pool_types, "channels"),
            "spatial": Sequential(children=spatial),
            "gate": Activation(function=gate_layer),
        }
    )


def excitation(channels: int, width: int, act_layer: ElementwiseName) -> dict[str, Node]:
    """A perceptron of 1x1 convolutions, (channels, H, W) to the same shape."""
    return {
        "fc1": Conv2d(in_channels=channels, out_channels=width, kernel_size=1),
        "act": Activation(function=act_layer),
        "fc2": Conv2d(in_channels=width, out_channels=channels, kernel_size=1),
    }


def dilated_branch(channels: int, act_layer: ElementwiseName) -> Sequential:
    """BAM's spatial branch: (channels, H, W) to logits (1, H, W)."""
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
    """MAF, the channel gate: x * sigmoid(W2 ReLU(W1 [avg(x), std(x)] + b1) + b2), (channels, H, W) to the same shape.

    Args:
        channels: channels of the map.
        rd_ratio: width of the perceptron as a share of `channels`, rounded down, at least 1.
        rd_channels: that width itself.
        pool_types: statistics of each channel over the map, any of "avg", "std" (unbiased) and "max", concatenated.
        act_layer: activation of the perceptron.
        gate_layer: what bounds the gate: "sigmoid", "hard_sigmoid" or "tanh".

    Raises:
        SpecError: an argument is invalid, or a pool type stands there twice.
    """
    pools = _as_names(pool_types)
    gate = perceptron(channels, hidden_width(channels, rd_ratio, rd_channels), pools, act_layer)
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
    """MAF_C: MAF, the channel gate, then a spatial gate, as CBAM arranges them; (channels, H, W) to the same shape.

    The spatial gate is x * sigmoid(BN(Conv7x7([avg, std] over the channels))).

    Args:
        channels: channels of the map.
        rd_ratio: width of the perceptron as a share of `channels`, rounded down, at least 1.
        rd_channels: that width itself.
        pool_types: statistics, any of "avg", "std" (unbiased) and "max": of each channel over the map in the channel
            gate, of each position over the channels in the spatial gate.
        spatial: False leaves the spatial gate out.
        act_layer: activation of the perceptron.
        gate_layer: what bounds each of the two gates: "sigmoid", "hard_sigmoid" or "tanh".

    Raises:
        SpecError: an argument is invalid, or a pool type stands there twice.
    """
    channel = maf(channels, rd_ratio, rd_channels, pool_types, act_layer=act_layer, gate_layer=gate_layer)
    children: dict[str, Node] = {"ChannelGate": channel}
    if spatial:
        children["SpatialGate"] = spatial_gate(_as_names(pool_types), gate_layer)
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
    """MAF_B, our reading (no code was published): x * (1 + sigmoid(C(x) + S(x))), as BAM arranges it.

    C is the perceptron of MAF, S the dilated branch of BAM (arXiv 1807.06514; reduction 16, dilation 4).
    (channels, H, W) to the same shape.

    Args:
        channels: channels of the map.
        rd_ratio: width of the perceptron as a share of `channels`, rounded down, at least 1.
        rd_channels: that width itself.
        pool_types: statistics of each channel over the map, any of "avg", "std" (unbiased) and "max", concatenated.
        act_layer: activation of the perceptron and of the dilated branch.
        gate_layer: what bounds the gate: "sigmoid", "hard_sigmoid" or "tanh".

    Raises:
        SpecError: an argument is invalid, or a pool type stands there twice.
    """
    pools = _as_names(pool_types)
    channel = perceptron(channels, hidden_width(channels, rd_ratio, rd_channels), pools, act_layer)
    both = {"ChannelGate": Sequential(children=channel), "SpatialGate": dilated_branch(channels, act_layer)}
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
    """Squeeze and excitation: x * sigmoid(W2 ReLU(W1 avg(x) + b1) + b2), (channels, H, W) to the same shape.

    Args:
        channels: channels of the map.
        rd_ratio: width of the perceptron as a share of `channels`, rounded down, at least 1.
        rd_channels: that width itself.
        act_layer: activation of the perceptron.
        gate_layer: what bounds the gate: "sigmoid", "hard_sigmoid" or "tanh".

    Raises:
        SpecError: an argument is invalid.
    """
    children = {
        "pool": GlobalPool(),
        **excitation(channels, hidden_width(channels, rd_ratio, rd_channels), act_layer),
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
    """CBAM: one perceptron on the average and on the maximum, summed, sigmoid; then the spatial gate of [max, avg].

    (channels, H, W) to the same shape. The perceptron is two 1x1 convolutions over a map of the two statistics, so that
    both go through the same weights.

    Args:
        channels: channels of the map.
        rd_ratio: width of the perceptron as a share of `channels`, rounded down, at least 1.
        rd_channels: that width itself.
        spatial: False leaves the spatial gate out.
        act_layer: activation of the perceptron.
        gate_layer: what bounds each of the two gates: "sigmoid", "hard_sigmoid" or "tanh".

    Raises:
        SpecError: an argument is invalid.
    """
    pools = Parallel(children={"avg": GlobalPool(), "max": GlobalPool(function="max")}, merge="stack")
    channel = Scale(
        children={
            "pools": pools,
            **excitation(channels, hidden_width(channels, rd_ratio, rd_channels), act_layer),
            "sum": GlobalPool(function="sum"),
            "gate": Activation(function=gate_layer),
        }
    )
    children: dict[str, Node] = {"ChannelGate": channel}
    if spatial:
        children["SpatialGate"] = spatial_gate(("max", "avg"), gate_layer)
    return Sequential(children=children)
