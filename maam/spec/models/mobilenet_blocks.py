"""The convolutions that the MobileNets are made of."""

from __future__ import annotations

from typing import Any

from maam.spec.node import Node
from maam.spec.primitives import Activation, BatchNorm2d, Conv2d, ElementwiseName, Sequential


def block(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    act: ElementwiseName | None,
    *,
    stride: int = 1,
    groups: int = 1,
) -> Sequential:
    """Convolution without bias, batch norm, activation (None: none)."""
    conv = _conv(in_channels, out_channels, kernel_size, stride=stride, groups=groups)
    children: dict[str, Node] = {"conv": conv, "bn": BatchNorm2d(num_features=out_channels)}
    if act is not None:
        children["act"] = Activation(function=act)
    return Sequential(children=children)


def unnormalised(in_channels: int, out_channels: int, act: ElementwiseName) -> Sequential:
    """A 1x1 convolution without bias, activation."""
    return Sequential(children={"conv": _conv(in_channels, out_channels, 1), "act": Activation(function=act)})


def _conv(in_channels: int, out_channels: int, kernel_size: int, **options: Any) -> Conv2d:
    return Conv2d(
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=kernel_size,
        padding=kernel_size // 2,
        bias=False,
        init="kaiming_uniform",
        **options,
    )


def classifier(in_channels: int, num_classes: int) -> Conv2d:
    """The 1x1 convolution that gives the logits."""
    return Conv2d(in_channels=in_channels, out_channels=num_classes, kernel_size=1, init="xavier_normal")
