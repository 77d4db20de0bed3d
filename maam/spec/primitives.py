"""Primitives: the layers that a backend implements, with their shapes, parameters and multiply-accumulates."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import model_validator

from maam.errors import ShapeError
from maam.spec.fields import Flag, Fraction, NonNegative, Positive, Probability, Real, Shape, Size
from maam.spec.node import Node
from maam.spec.parameters import ONES, ZEROS, Init, Parameter, Role, WeightInit, weight_init


def feature_map(shape: Shape, channels: int | None = None) -> tuple[int, int, int]:
    """Return `shape` as (C, H, W), after checking it.

    Args:
        shape: a shape without batch.
        channels: the required C; None for any.

    Raises:
        ShapeError: `shape` does not have three positive sizes, or C differs from `channels`.
    """
    if len(shape) != 3 or min(shape) < 1:
        raise ShapeError(f"expected a feature map (C, H, W), got shape {shape}")
    if channels is not None and shape[0] != channels:
        raise ShapeError(f"expected {channels} channels, got {shape[0]}")
    return shape[0], shape[1], shape[2]


def windows(size: tuple[int, int], extent: int, stride: int, padding: int) -> tuple[int, int]:
    """Return the height and width of the output of a sliding window.

    Args:
        size: (H, W) of the input.
        extent: height and width of the window, with dilation.
        stride: the step.
        padding: the padding on each side.

    Raises:
        ShapeError: the padded map is smaller than the window.
    """
    if min(size) + 2 * padding < extent:
        padded = f" padded by {padding}" if padding else ""
        raise ShapeError(
            f"a map of {size[0]}x{size[1]}{padded} is too small for a window of {extent}x{extent}; use a larger input"
        )
    height, width = ((side + 2 * padding - extent) // stride + 1 for side in size)
    return height, width


class Conv2d(Node):
    """Convolution (cross-correlation) with square kernels and zero padding.

    Shape:
        (in_channels, H, W) to (out_channels, H', W'), with
        H' = (H + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1.

    Parameters: weight (out_channels, in_channels // groups, kernel_size, kernel_size), bias (out_channels,).

    Example:
        >>> from maam import spec
        >>> spec.Conv2d(in_channels=3, out_channels=8, kernel_size=3, padding=1).output_shape((3, 32, 32))
        (8, 32, 32)
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
        """The shape of the weight: (out_channels, in_channels // groups, kernel_size, kernel_size)."""
        return self.out_channels, self.in_channels // self.groups, self.kernel_size, self.kernel_size

    @property
    def in_channels_expected(self) -> int | None:
        """The number of input channels."""
        return self.in_channels

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (out_channels, H', W')."""
        _, *size = feature_map(input_shape, self.in_channels)
        extent = self.dilation * (self.kernel_size - 1) + 1
        return self.out_channels, *windows((size[0], size[1]), extent, self.stride, self.padding)

    def own_parameters(self) -> tuple[Parameter, ...]:
        """Return the weight and, with `bias`, the bias."""
        fan_in = math.prod(self.weight_shape[1:])
        fan_out = self.out_channels // self.groups * self.kernel_size**2
        weight = Parameter("weight", self.weight_shape, Role.WEIGHT, weight_init(self.init, fan_in, fan_out))
        bias = Parameter("bias", (self.out_channels,), Role.BIAS, Init("uniform", 1 / math.sqrt(fan_in)))
        return (weight, bias) if self.bias else (weight,)

    def own_macs(self, input_shape: Shape) -> int:
        """Return the size of the weight times the number of output positions."""
        _, height, width = self.output_shape(input_shape)
        return math.prod(self.weight_shape) * height * width


class Conv1d(Node):
    """Convolution (cross-correlation) of a sequence, with zero padding.

    Shape:
        (in_channels, L) to (out_channels, L'), with L' = L + 2 * padding - kernel_size + 1.

    Parameters: weight (out_channels, in_channels, kernel_size), bias (out_channels,).

    Example:
        >>> from maam import spec
        >>> spec.Conv1d(in_channels=1, out_channels=1, kernel_size=3, padding=1).output_shape((1, 64))
        (1, 64)
    """

    kind: ClassVar[str] = "conv1d"
    in_channels: Size
    out_channels: Size
    kernel_size: Size
    padding: NonNegative = 0
    bias: Flag = True
    init: WeightInit = "fan_in_uniform"

    @property
    def in_channels_expected(self) -> int | None:
        """The number of input channels."""
        return self.in_channels

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (out_channels, L')."""
        if len(input_shape) != 2 or input_shape[0] != self.in_channels or input_shape[1] < 1:
            raise ShapeError(f"expected a sequence ({self.in_channels}, L), got shape {input_shape}")
        length = input_shape[1] + 2 * self.padding - self.kernel_size + 1
        if length < 1:
            raise ShapeError(
                f"a sequence of {input_shape[1]} is too short for a window of {self.kernel_size}; use a longer input"
            )
        return self.out_channels, length

    def own_parameters(self) -> tuple[Parameter, ...]:
        """Return the weight and, with `bias`, the bias."""
        fan_in, fan_out = self.in_channels * self.kernel_size, self.out_channels * self.kernel_size
        shape = (self.out_channels, self.in_channels, self.kernel_size)
        weight = Parameter("weight", shape, Role.WEIGHT, weight_init(self.init, fan_in, fan_out))
        bias = Parameter("bias", (self.out_channels,), Role.BIAS, Init("uniform", 1 / math.sqrt(fan_in)))
        return (weight, bias) if self.bias else (weight,)

    def own_macs(self, input_shape: Shape) -> int:
        """Return the size of the weight times the number of output positions."""
        return self.in_channels * self.kernel_size * math.prod(self.output_shape(input_shape))


class Linear(Node):
    """Linear layer: y = W x + b, (in_features,) to (out_features,), or for each of L tokens.

    Shape:
        (in_features,) to (out_features,), or (L, in_features) to (L, out_features).

    Parameters: weight (out_features, in_features), bias (out_features,).

    Example:
        >>> from maam import spec
        >>> spec.Linear(in_features=64, out_features=10).num_parameters
        650
    """

    kind: ClassVar[str] = "linear"
    in_features: Size
    out_features: Size
    bias: Flag = True
    init: WeightInit = "fan_in_uniform"

    @property
    def in_channels_expected(self) -> int | None:
        """The number of input features."""
        return self.in_features

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (out_features,), or (L, out_features)."""
        if len(input_shape) > 2 or input_shape[-1:] != (self.in_features,):
            raise ShapeError(f"expected a vector of {self.in_features} features, got shape {input_shape}")
        return (*input_shape[:-1], self.out_features)

    def own_parameters(self) -> tuple[Parameter, ...]:
        """Return the weight and, with `bias`, the bias."""
        shape = (self.out_features, self.in_features)
        init = weight_init(self.init, self.in_features, self.out_features)
        weight = Parameter("weight", shape, Role.WEIGHT, init)
        bound = Init("uniform", 1 / math.sqrt(self.in_features))
        bias = Parameter("bias", (self.out_features,), Role.BIAS, bound)
        return (weight, bias) if self.bias else (weight,)

    def own_macs(self, input_shape: Shape) -> int:
        """Return in_features * out_features, times the number of tokens."""
        return self.in_features * self.out_features * math.prod(input_shape[:-1])


class RNN(Node):
    """Tanh recurrent layer over the rows of a feature map, from top to bottom.

    h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), where x_t is row t with its C * W = input_size values, h_0 = 0.

    Shape:
        (C, H, W) to the last state (hidden_size,).

    Example:
        >>> from maam import spec
        >>> spec.RNN(input_size=3 * 32, hidden_size=128).output_shape((3, 32, 32))
        (128,)
    """

    kind: ClassVar[str] = "rnn"
    input_size: Size
    hidden_size: Size

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (hidden_size,)."""
        channels, _, width = feature_map(input_shape)
        if channels * width != self.input_size:
            raise ShapeError(f"expected rows of {self.input_size} values, got {channels} x {width}")
        return (self.hidden_size,)

    def own_parameters(self) -> tuple[Parameter, ...]:
        """Return the weights and biases under the names of PyTorch."""
        init = Init("uniform", 1 / math.sqrt(self.hidden_size))
        hidden = self.hidden_size
        return (
            Parameter("weight_ih_l0", (hidden, self.input_size), Role.RECURRENT, init),
            Parameter("weight_hh_l0", (hidden, hidden), Role.RECURRENT, init),
            Parameter("bias_ih_l0", (hidden,), Role.RECURRENT, init),
            Parameter("bias_hh_l0", (hidden,), Role.RECURRENT, init),
        )

    def own_macs(self, input_shape: Shape) -> int:
        """Return the size of both matrices times the number of rows."""
        return input_shape[1] * self.hidden_size * (self.input_size + self.hidden_size)


class BatchNorm2d(Node):
    """Batch normalization: y = weight * (x - mean) / sqrt(var + eps) + bias for each channel of (C, H, W).

    In training mode, mean and biased variance are those of the batch, and the running statistics are updated:
    running = (1 - momentum) * running + momentum * batch, with the unbiased variance. This is the momentum of PyTorch;
    MindSpore's is 1 - momentum.

    Example:
        >>> from maam import spec
        >>> [p.name for p in spec.BatchNorm2d(num_features=8).parameters()]
        ['weight', 'bias', 'running_mean', 'running_var']
    """

    kind: ClassVar[str] = "batch_norm2d"
    num_features: Size
    eps: Positive = 1e-5
    momentum: Fraction = 0.1

    @property
    def in_channels_expected(self) -> int | None:
        """The number of channels."""
        return self.num_features

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input shape."""
        return feature_map(input_shape, self.num_features)

    def own_parameters(self) -> tuple[Parameter, ...]:
        """Return weight, bias, running_mean and running_var, each (num_features,)."""
        shape = (self.num_features,)
        return (
            Parameter("weight", shape, Role.NORM_WEIGHT, ONES),
            Parameter("bias", shape, Role.NORM_BIAS, ZEROS),
            Parameter("running_mean", shape, Role.RUNNING_MEAN, ZEROS),
            Parameter("running_var", shape, Role.RUNNING_VAR, ONES),
        )


class GroupNorm(Node):
    """Group normalization: y = weight * (x - mean) / sqrt(var + eps) + bias for each group of channels of a sample.

    Mean and biased variance are those of the group, in training and in inference.

    Shape:
        (num_channels, ...) to the same shape.

    Example:
        >>> from maam import spec
        >>> spec.GroupNorm(num_groups=2, num_channels=8).output_shape((8, 4, 4))
        (8, 4, 4)
    """

    kind: ClassVar[str] = "group_norm"
    num_groups: Size
    num_channels: Size
    eps: Positive = 1e-5

    @model_validator(mode="after")
    def _groups_divide(self) -> GroupNorm:
        if self.num_channels % self.num_groups:
            raise ValueError(f"num_groups: {self.num_groups} must divide num_channels {self.num_channels}")
        return self

    @property
    def in_channels_expected(self) -> int | None:
        """The number of channels."""
        return self.num_channels

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input shape."""
        return feature_map(input_shape, self.num_channels)

    def own_parameters(self) -> tuple[Parameter, ...]:
        """Return weight and bias, each (num_channels,)."""
        shape = (self.num_channels,)
        return Parameter("weight", shape, Role.NORM_WEIGHT, ONES), Parameter("bias", shape, Role.NORM_BIAS, ZEROS)


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
ActivationName = Literal[ElementwiseName, "softmax", "abs"]
"""relu6: min(max(x, 0), 6). elu: alpha is 1. gelu: x * Phi(x), with the exact normal distribution function.
silu: x * sigmoid(x). hard_sigmoid: relu6(x + 3) / 6. hard_swish: x * hard_sigmoid(x).
softmax: over axis 1. abs: |x|."""


class Curve(NamedTuple):
    """The properties of an activation that other parts of maam depend on.

    Attributes:
        keeps_zero: whether f(0) = 0.
        kinks: the inputs where the slope jumps.
        smooth: a similar activation without kinks, for comparisons; "" if there is none, or none is needed.
        homogeneous: whether f(c * x) = c * f(x) for every c >= 0.
    """

    keeps_zero: bool
    kinks: tuple[float, ...] = ()
    smooth: str = ""
    homogeneous: bool = False


CURVES: dict[str, Curve] = {
    "relu": Curve(True, (0.0,), "silu", homogeneous=True),
    "relu6": Curve(True, (0.0, 6.0), "silu"),
    "leaky_relu": Curve(True, (0.0,), "silu", homogeneous=True),
    "elu": Curve(True),
    "gelu": Curve(True),
    "silu": Curve(True),
    "hard_swish": Curve(True, (-3.0, 3.0), "silu"),
    "sigmoid": Curve(False),
    "hard_sigmoid": Curve(False, (-3.0, 3.0), "sigmoid"),
    "tanh": Curve(True),
    "identity": Curve(True, homogeneous=True),
    "softmax": Curve(False),
    "abs": Curve(True, (0.0,), homogeneous=True),
}
"""The curve of each activation."""


class Activation(Node):
    """Activation by name; the output has the input's shape. Only "leaky_relu" uses `negative_slope`.

    Example:
        >>> from maam import spec
        >>> spec.Activation(function="hard_swish").output_shape((8, 32, 32))
        (8, 32, 32)
    """

    kind: ClassVar[str] = "activation"
    function: ActivationName
    negative_slope: Real = 0.01

    def function_fields(self) -> dict[str, Any]:
        """Return the fields; `negative_slope` is None unless the function is "leaky_relu"."""
        found = super().function_fields()
        return found if self.function == "leaky_relu" else found | {"negative_slope": None}

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input shape."""
        return input_shape


class Identity(Node):
    """Identity: y = x.

    Example:
        >>> from maam import spec
        >>> spec.Identity().output_shape((8, 32, 32))
        (8, 32, 32)
    """

    kind: ClassVar[str] = "identity"

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input shape."""
        return input_shape


class Flatten(Node):
    """Flatten: (C, H, W) to (C * H * W,), in row-major order.

    Example:
        >>> from maam import spec
        >>> spec.Flatten().output_shape((8, 4, 4))
        (128,)
    """

    kind: ClassVar[str] = "flatten"

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (C * H * W,)."""
        return (math.prod(input_shape),)


class Unflatten(Node):
    """Unflatten: (C,) to (C, 1, 1).

    Example:
        >>> from maam import spec
        >>> spec.Unflatten().output_shape((8,))
        (8, 1, 1)
    """

    kind: ClassVar[str] = "unflatten"

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (C, 1, 1)."""
        if len(input_shape) != 1:
            raise ShapeError(f"expected a vector (C,), got shape {input_shape}")
        return input_shape[0], 1, 1


class Dropout(Node):
    """Dropout: in training mode, set each value to 0 with probability `p` and divide the others by 1 - p.

    Example:
        >>> from maam import spec
        >>> spec.Dropout(p=0.5).output_shape((128,))
        (128,)
    """

    kind: ClassVar[str] = "dropout"
    p: Probability

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input shape."""
        return input_shape
