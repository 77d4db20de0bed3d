"""The blocks that composites are made of."""

from __future__ import annotations

from typing import Literal

from maam.spec.node import Node
from maam.spec.primitives import Activation, BatchNorm2d, Conv2d, ElementwiseName, Sequential

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
