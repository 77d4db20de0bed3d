"""Two-dimensional convolution."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import model_validator

from maam.spec.fields import Flag, NonNegative, Shape, Size
from maam.spec.node import Node
from maam.spec.parameters import Init, Parameter, Role, WeightInit, weight_init
from maam.spec.primitives.shapes import feature_map, windows


class Conv2d(Node):
    """Cross-correlation with zero padding, square kernels: (in_channels, H, W) to (out_channels, H', W').

    Parameters: weight (out_channels, in_channels // groups, kernel_size, kernel_size), bias (out_channels,).
    """

    kind: ClassVar[str] = "conv2d"
    in_channels: Size
    out_channels: Size
    kernel_size: Size
    stride: Size = 1
    padding: NonNegative = 0
    dilation: Size = 1
    groups: Size = 1
    bias: Flag = True
    init: WeightInit = "fan_in_uniform"

    @model_validator(mode="after")
    def _groups_divide(self) -> Conv2d:
        if self.in_channels % self.groups or self.out_channels % self.groups:
            raise ValueError(
                f"groups: {self.groups} must divide in_channels {self.in_channels} and out_channels {self.out_channels}"
            )
        return self

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """(out_channels, in_channels // groups, kernel_size, kernel_size)."""
        return self.out_channels, self.in_channels // self.groups, self.kernel_size, self.kernel_size

    @property
    def in_channels_expected(self) -> int | None:
        """`in_channels`."""
        return self.in_channels

    def output_shape(self, input_shape: Shape) -> Shape:
        """(out_channels, H', W'), H' = (H + 2 padding - dilation (kernel_size - 1) - 1) // stride + 1."""
        _, *size = feature_map(input_shape, self.in_channels)
        extent = self.dilation * (self.kernel_size - 1) + 1
        return self.out_channels, *windows((size[0], size[1]), extent, self.stride, self.padding)

    def own_parameters(self) -> tuple[Parameter, ...]:
        """The weight, and the bias where there is one."""
        fan_in = math.prod(self.weight_shape[1:])
        fan_out = self.out_channels // self.groups * self.kernel_size**2
        weight = Parameter("weight", self.weight_shape, Role.WEIGHT, weight_init(self.init, fan_in, fan_out))
        bias = Parameter("bias", (self.out_channels,), Role.BIAS, Init("uniform", 1 / math.sqrt(fan_in)))
        return (weight, bias) if self.bias else (weight,)

    def own_macs(self, input_shape: Shape) -> int:
        """Weight size times output positions."""
        _, height, width = self.output_shape(input_shape)
        return math.prod(self.weight_shape) * height * width
