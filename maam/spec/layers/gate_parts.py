"""What the gates are made of: the types of their arguments, statistics, perceptrons, spatial gates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from maam.spec.fields import AsNumber, Ordered
from maam.spec.node import Node
from maam.spec.primitives import (
    Activation,
    BatchNorm2d,
    Conv2d,
    ElementwiseName,
    Flatten,
    GlobalPool,
    Linear,
    Parallel,
    Scale,
    Sequential,
    Unflatten,
)

PoolType = Literal["avg", "std", "max"]


def _each_once(pool_types: tuple[PoolType, ...]) -> tuple[PoolType, ...]:
    if not pool_types:
        raise ValueError("expected at least one of avg, std, max")
    if len(set(pool_types)) < len(pool_types):
        raise ValueError(f"each at most once, got {', '.join(pool_types)}")
    return pool_types


PoolTypes = Annotated[
    tuple[PoolType, ...],
    Ordered,
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    AfterValidator(_each_once),
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


def statistics(pool_types: tuple[PoolType, ...], axis: Literal["spatial", "channels"]) -> Node:
    """The statistics of a map along an axis, side by side."""
    pools: dict[str, Node] = {name: GlobalPool(function=name, axis=axis) for name in pool_types}
    return Parallel(children=pools, merge="concat")


def perceptron(
    channels: int, width: int, pool_types: tuple[PoolType, ...], act_layer: ElementwiseName
) -> dict[str, Node]:
    """Pooling and deformed-bottleneck recalibration: (channels, H, W) to logits (channels, 1, 1)."""
    mlp = {
        "0": Flatten(),
        "1": Linear(in_features=len(pool_types) * channels, out_features=width),
        "2": Activation(function=act_layer),
        "3": Linear(in_features=width, out_features=channels),
    }
    return {"pools": statistics(pool_types, "spatial"), "mlp": Sequential(children=mlp), "unflatten": Unflatten()}


def spatial_gate(pool_types: tuple[PoolType, ...], gate_layer: GateName) -> Scale:
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
