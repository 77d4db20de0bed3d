"""Layers without arithmetic: flatten, unflatten, dropout, identity."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from maam.errors import ShapeError
from maam.spec.fields import Flag, Fraction, NonNegative, Positive, Probability, Real, Shape, Size
from maam.spec.node import Node
from maam.spec.parameters import ONES, ZEROS, Init, Parameter, Role, WeightInit, weight_init


def feature_map(shape: Shape, channels: int | None = None) -> tuple[int, int, int]:
    """`shape` as (C, H, W); with `channels`, C must be that.

    Raises:
        ShapeError: `shape` is no feature map, or has another number of channels.
    """
    if len(shape) != 3 or any(size < 1 for size in shape):
        raise ShapeError(f"expected a feature map (C, H, W), got shape {shape}")
    if channels is not None and shape[0] != channels:
        raise ShapeError(f"expected {channels} channels, got {shape[0]}")
    return shape[0], shape[1], shape[2]


def windows(size: tuple[int, int], extent: int, stride: int, padding: int) -> tuple[int, int]:
    """The number of positions of a window of `extent` over a padded map of `size` (H, W).

    Raises:
        ShapeError: the padded map is smaller than the window.
    """
    if min(size) + 2 * padding < extent:
        padded = f" padded by {padding}" if padding else ""
        raise ShapeError(f"a map of {size[0]}x{size[1]}{padded} is too small for a window of {extent}x{extent}")
    height, width = ((side + 2 * padding - extent) // stride + 1 for side in size)
    return height, width


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


class Linear(Node):
    """y = W x + b: (in_features,) to (out_features,). Parameters: weight (out_features, in_features), bias."""

    kind: ClassVar[str] = "linear"
    in_features: Size
    out_features: Size
    bias: Flag = True
    init: WeightInit = "fan_in_uniform"

    @property
    def in_channels_expected(self) -> int | None:
        """`in_features`."""
        return self.in_features

    def output_shape(self, input_shape: Shape) -> Shape:
        """(out_features,)."""
        if input_shape != (self.in_features,):
            raise ShapeError(f"expected a vector of {self.in_features} features, got shape {input_shape}")
        return (self.out_features,)

    def own_parameters(self) -> tuple[Parameter, ...]:
        """The weight, and the bias where there is one."""
        shape = (self.out_features, self.in_features)
        init = weight_init(self.init, self.in_features, self.out_features)
        weight = Parameter("weight", shape, Role.WEIGHT, init)
        bound = Init("uniform", 1 / math.sqrt(self.in_features))
        bias = Parameter("bias", (self.out_features,), Role.BIAS, bound)
        return (weight, bias) if self.bias else (weight,)

    def own_macs(self, input_shape: Shape) -> int:
        """in_features times out_features."""
        return self.in_features * self.out_features


class RNN(Node):
    """A tanh recurrent layer over the rows of a map, top to bottom: (C, H, W) to the last state (hidden_size,).

    Row t is x_t = map[:, t, :] flattened to input_size = C * W values;
    h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), h_0 = 0.
    """

    kind: ClassVar[str] = "rnn"
    input_size: Size
    hidden_size: Size

    def output_shape(self, input_shape: Shape) -> Shape:
        """(hidden_size,)."""
        channels, _, width = feature_map(input_shape)
        if channels * width != self.input_size:
            raise ShapeError(f"expected rows of {self.input_size} values, got {channels} x {width}")
        return (self.hidden_size,)

    def own_parameters(self) -> tuple[Parameter, ...]:
        """The input and the recurrent weight, and a bias for each, as PyTorch names them."""
        init = Init("uniform", 1 / math.sqrt(self.hidden_size))
        hidden = self.hidden_size
        return (
            Parameter("weight_ih_l0", (hidden, self.input_size), Role.RECURRENT, init),
            Parameter("weight_hh_l0", (hidden, hidden), Role.RECURRENT, init),
            Parameter("bias_ih_l0", (hidden,), Role.RECURRENT, init),
            Parameter("bias_hh_l0", (hidden,), Role.RECURRENT, init),
        )

    def own_macs(self, input_shape: Shape) -> int:
        """Both matrices, once a row."""
        return input_shape[1] * self.hidden_size * (self.input_size + self.hidden_size)


class BatchNorm2d(Node):
    """y = weight (x - mean) / sqrt(var + eps) + bias, a channel at a time, on (C, H, W).

    In training mode mean and (biased) variance are the batch's own, and the running ones move by
    running = (1 - momentum) running + momentum batch, with the unbiased variance: PyTorch's sense of momentum.
    """

    kind: ClassVar[str] = "batch_norm2d"
    num_features: Size
    eps: Positive = 1e-5
    momentum: Fraction = 0.1

    @property
    def in_channels_expected(self) -> int | None:
        """`num_features`."""
        return self.num_features

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return feature_map(input_shape, self.num_features)

    def own_parameters(self) -> tuple[Parameter, ...]:
        """weight, bias, running_mean, running_var, each (num_features,)."""
        shape = (self.num_features,)
        return (
            Parameter("weight", shape, Role.NORM_WEIGHT, ONES),
            Parameter("bias", shape, Role.NORM_BIAS, ZEROS),
            Parameter("running_mean", shape, Role.RUNNING_MEAN, ZEROS),
            Parameter("running_var", shape, Role.RUNNING_VAR, ONES),
        )


ElementwiseName = Literal[
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "gelu",
    "silu",
    "hard_swish",
    "sigmoid",
    "hard_sigmoid",
    "tanh",
    "identity",
]
ActivationName = Literal[ElementwiseName, "softmax"]
"""relu6: min(max(x, 0), 6); elu with alpha 1; gelu: x Phi(x) with the exact normal distribution function;
silu: x sigmoid(x); hard_sigmoid: relu6(x + 3) / 6; hard_swish: x hard_sigmoid(x); softmax over axis 1."""


class Activation(Node):
    """An activation by name; the output has the input's shape. `negative_slope` belongs to leaky_relu alone."""

    kind: ClassVar[str] = "activation"
    function: ActivationName
    negative_slope: Real = 0.01

    def function_fields(self) -> dict[str, Any]:
        """The slope for leaky_relu alone."""
        found = super().function_fields()
        return found if self.function == "leaky_relu" else found | {"negative_slope": None}

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape


class _WindowPool(Node):
    kernel_size: Size
    stride: Size | None = None

    @property
    def step(self) -> int:
        """The stride; as large as the window where none is given."""
        return self.kernel_size if self.stride is None else self.stride

    def function_fields(self) -> dict[str, Any]:
        """The stride as it is, given or not."""
        return super().function_fields() | {"stride": self.step}


class MaxPool2d(_WindowPool):
    """The largest value of each window: (C, H, W) to (C, H', W'). Padding counts as minus infinity."""

    kind: ClassVar[str] = "max_pool2d"
    padding: NonNegative = 0

    @model_validator(mode="after")
    def _padding_fits(self) -> MaxPool2d:
        if 2 * self.padding > self.kernel_size:
            raise ValueError(
                f"padding: {self.padding} must be at most half of kernel_size {self.kernel_size}, "
                "so that no window lies in the padding alone"
            )
        return self

    def output_shape(self, input_shape: Shape) -> Shape:
        """(C, H', W'), H' = (H + 2 padding - kernel_size) // stride + 1."""
        channels, *size = feature_map(input_shape)
        return channels, *windows((size[0], size[1]), self.kernel_size, self.step, self.padding)


class AvgPool2d(_WindowPool):
    """The mean of each window, without padding: (C, H, W) to (C, H', W')."""

    kind: ClassVar[str] = "avg_pool2d"

    def output_shape(self, input_shape: Shape) -> Shape:
        """(C, H', W'), H' = (H - kernel_size) // stride + 1."""
        channels, *size = feature_map(input_shape)
        return channels, *windows((size[0], size[1]), self.kernel_size, self.step, 0)


class GlobalPool(Node):
    """One statistic over the whole map, (C, H, W) to (C, 1, 1), or over the channels, to (1, H, W).

    std is the unbiased standard deviation: centred first, the sum of squares divided by max(n - 1, 1), in float32 or
    wider; where all values are equal it is 0 but for the rounding of their mean, and the gradient 0 where it is 0.
    """

    kind: ClassVar[str] = "global_pool"
    function: Literal["avg", "max", "std", "sum"] = "avg"
    axis: Literal["spatial", "channels"] = "spatial"

    def output_shape(self, input_shape: Shape) -> Shape:
        """(C, 1, 1), or (1, H, W) over the channels."""
        channels, height, width = feature_map(input_shape)
        return (channels, 1, 1) if self.axis == "spatial" else (1, height, width)


class Identity(Node):
    """y = x."""

    kind: ClassVar[str] = "identity"

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape


class Flatten(Node):
    """(C, H, W) to (C * H * W,), channels slowest."""

    kind: ClassVar[str] = "flatten"

    def output_shape(self, input_shape: Shape) -> Shape:
        """(C * H * W,)."""
        return (math.prod(input_shape),)


class Unflatten(Node):
    """(C,) to (C, 1, 1)."""

    kind: ClassVar[str] = "unflatten"

    def output_shape(self, input_shape: Shape) -> Shape:
        """(C, 1, 1)."""
        if len(input_shape) != 1:
            raise ShapeError(f"expected a vector (C,), got shape {input_shape}")
        return input_shape[0], 1, 1


class Dropout(Node):
    """In training mode sets each value to 0 with probability `p` and divides the rest by 1 - p."""

    kind: ClassVar[str] = "dropout"
    p: Probability

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape
