"""The primitives of `maam.spec` as MindSpore cells. The rest of this backend is independent of the architecture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common import initializer as native
from mindspore.common.initializer import initializer
from mindspore.ops import constexpr

from maam import spec
from maam.spec import Node


class _Readable:
    """An initializer with a readable repr; MindSpore's initializers show a memory address in the repr of cells."""

    def __init__(self, value: float) -> None:
        super().__init__(value)  # type: ignore[call-arg]
        self.value = value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value:.4g})"


class Constant(_Readable, native.Constant):
    """The given value for all elements."""


class Uniform(_Readable, native.Uniform):
    """The distribution U(-value, value)."""


class Normal(_Readable, native.Normal):
    """The distribution N(0, value squared)."""


_CLASSES = {"constant": Constant, "uniform": Uniform, "normal": Normal}


def initializer_of(parameter: spec.Parameter) -> Any:
    """Return MindSpore's initializer of a parameter's distribution."""
    return _CLASSES[parameter.init.distribution](parameter.init.value)


def weight_and_bias(node: Node) -> dict[str, Any]:
    """Return the arguments `weight_init` and `bias_init` of a convolution or a dense layer."""
    return {f"{parameter.name}_init": initializer_of(parameter) for parameter in node.own_parameters()}


Options = dict[str, Any]
"""The keyword argument `dtype` of cells with arrays."""


class Tanh(nn.Cell):
    """`spec.Activation` tanh: any shape to the same shape."""

    def construct(self, x: Tensor) -> Tensor:
        """Return 2 sigmoid(2 x) - 1: MindSpore's own tanh has an error of 1e-4 near 5 on CPUs."""
        return 2 * ops.sigmoid(2 * x) - 1


def softmax(x: Tensor, axis: int) -> Tensor:
    """Return exp(x - max) / sum over `axis`, with the shape of x.

    It replaces `ops.softmax`, whose gradient can be wrong in PyNative mode on CPUs: after hundreds of other models in
    the same process, it was that of an axis of size 1 (`tests/parity/test_random_specs.py`).
    """
    powers = ops.exp(x - ops.stop_gradient(ops.ReduceMax(keep_dims=True)(x, axis)))
    return powers / ops.ReduceSum(keep_dims=True)(powers, axis)


class Softmax(nn.Cell):
    """`spec.Activation` softmax over the channels: any shape to the same shape."""

    def construct(self, x: Tensor) -> Tensor:
        """Return softmax over axis 1."""
        return softmax(x, 1)


class RowRNN(nn.Cell):
    """`spec.RNN`: (N, C, H, W) to the last state (N, hidden_size)."""

    def __init__(self, node: spec.RNN, dtype: Any = mstype.float32) -> None:
        super().__init__()
        for parameter in node.own_parameters():
            initial = initializer(initializer_of(parameter), parameter.shape, dtype)
            setattr(self, parameter.name, Parameter(initial, name=parameter.name))
        self.tanh = Tanh()

    def construct(self, x: Tensor) -> Tensor:
        """Return the state after reading the rows from top to bottom."""
        rows = x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)  # (N, C, H, W) -> (N, H, C * W)
        inputs = ops.matmul(rows, self.weight_ih_l0.T) + self.bias_ih_l0  # (N, H, hidden_size)
        state = ops.zeros_like(inputs[:, 0])  # (N, hidden_size)
        for index in range(x.shape[2]):
            state = self.tanh(inputs[:, index] + ops.matmul(state, self.weight_hh_l0.T) + self.bias_hh_l0)
        return state  # (N, hidden_size)

    def extend_repr(self) -> str:
        """Return the sizes of a row and of the state."""
        hidden_size, input_size = self.weight_ih_l0.shape
        return f"{input_size}, {hidden_size}"


class GlobalPool(nn.Cell):
    """`spec.GlobalPool`: (N, C, H, W) to (N, C, 1, 1), or to (N, 1, H, W) over the channels."""

    def __init__(self, node: spec.GlobalPool) -> None:
        super().__init__()
        self.function = node.function
        self.axes = (2, 3) if node.axis == "spatial" else (1,)

    def construct(self, x: Tensor) -> Tensor:
        """Return the statistic."""
        if self.function == "std":
            return standard_deviation(x, self.axes)
        if self.function == "max":
            return ops.amax(x, self.axes, True)
        mean = ops.mean(x, self.axes, True)  # (N, C, 1, 1) or (N, 1, H, W)
        return mean * _size(x, self.axes) if self.function == "sum" else mean

    def extend_repr(self) -> str:
        """Return the statistic and its axes."""
        return f"{self.function}, axes={self.axes}"


def _size(x: Tensor, axes: tuple[int, ...]) -> int:
    count = 1
    for axis in axes:
        count = count * x.shape[axis]
    return count


def standard_deviation(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the unbiased standard deviation over `axes`, which are kept with size 1.

    It is computed in float32 or wider. Where all values are equal it is 0, with gradient 0.
    """
    wide = ops.cast(x, mstype.float32) if x.dtype in (mstype.float16, mstype.bfloat16) else x
    size = _size(x, axes)
    squares = ops.mean(ops.square(wide - ops.mean(wide, axes, True)), axes, True) * size
    positive = squares > 0  # the slope of the root at 0 is infinite, so a constant is used there
    root = ops.sqrt(ops.select(positive, squares, ops.ones_like(squares)) / max(size - 1, 1))
    return ops.cast(ops.select(positive, root, ops.zeros_like(root)), x.dtype)


class Unflatten(nn.Cell):
    """`spec.Unflatten`: (N, C) to (N, C, 1, 1)."""

    def construct(self, x: Tensor) -> Tensor:
        """Append two axes of size 1."""
        return x.reshape(x.shape + (1, 1))  # (N, C) -> (N, C, 1, 1)


class Flatten(nn.Cell):
    """`spec.Flatten`: (N, C, H, W) to (N, C * H * W)."""

    def construct(self, x: Tensor) -> Tensor:
        """Flatten each sample; channels vary slowest."""
        return ops.flatten(x)  # (N, C, H, W) -> (N, C * H * W)


ACTIVATIONS: dict[str, Any] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "hard_swish": nn.HSwish,
    "sigmoid": nn.Sigmoid,
    "hard_sigmoid": nn.HSigmoid,
    "tanh": nn.Tanh,
    "softmax": nn.Softmax,
    "identity": nn.Identity,
}
NORMS: dict[str, Any] = {"batch_norm": nn.BatchNorm2d, "identity": nn.Identity}


def _activation(node: spec.Activation) -> nn.Cell:
    arguments: dict[str, Options] = {
        "leaky_relu": {"alpha": node.negative_slope},
        "gelu": {"approximate": False},
    }
    return {**ACTIVATIONS, "tanh": Tanh, "softmax": Softmax}[node.function](**arguments.get(node.function, {}))


def _conv2d(node: spec.Conv2d, **options: Any) -> nn.Cell:
    return nn.Conv2d(
        node.in_channels,
        node.out_channels,
        node.kernel_size,
        stride=node.stride,
        pad_mode="pad",
        padding=node.padding,
        dilation=node.dilation,
        group=node.groups,
        has_bias=node.bias,
        **weight_and_bias(node),
        **options,
    )


def _linear(node: spec.Linear, **options: Any) -> nn.Cell:
    initial = weight_and_bias(node)
    return nn.Dense(node.in_features, node.out_features, has_bias=node.bias, **initial, **options)


def _batch_norm(node: spec.BatchNorm2d, **options: Any) -> nn.Cell:
    # Momentum is the weight of the old value in MindSpore, and of the new value in PyTorch and in the spec.
    layer = nn.BatchNorm2d(node.num_features, eps=node.eps, momentum=1 - node.momentum, **options)
    layer.bn_train.recompute(False)  # a second run in the backward pass would update the running statistics again
    return layer


def _max_pool(node: spec.MaxPool2d) -> nn.Cell:
    padding = {"pad_mode": "pad", "padding": node.padding} if node.padding else {"pad_mode": "valid"}
    return nn.MaxPool2d(node.kernel_size, node.step, **padding)


WITH_ARRAYS: dict[type[spec.Node], Callable[..., nn.Cell]] = {
    spec.Conv2d: _conv2d,
    spec.Linear: _linear,
    spec.RNN: RowRNN,
    spec.BatchNorm2d: _batch_norm,
}
WITHOUT_ARRAYS: dict[type[spec.Node], Callable[[Any], nn.Cell]] = {
    spec.Activation: _activation,
    spec.MaxPool2d: _max_pool,
    spec.AvgPool2d: lambda node: nn.AvgPool2d(node.kernel_size, node.step, pad_mode="valid"),
    spec.GlobalPool: GlobalPool,
    spec.Unflatten: lambda node: Unflatten(),
    spec.Flatten: lambda node: Flatten(),
    spec.Dropout: lambda node: nn.Dropout(p=node.p),
    spec.Identity: lambda node: nn.Identity(),
}


@constexpr  # type: ignore[untyped-decorator]
def _source_index(size: int, target: int) -> Tensor:
    return Tensor(np.arange(target) * size // target, mstype.int32)


def resize(x: Tensor, height: int, width: int) -> Tensor:
    """Resize (N, C, H, W) to (N, C, height, width) by nearest neighbor, source index floor(i * in / out)."""
    if x.shape[2] != height:
        x = ops.gather(x, _source_index(x.shape[2], height), 2)  # (N, C, H, W) -> (N, C, height, W)
    if x.shape[3] != width:
        x = ops.gather(x, _source_index(x.shape[3], width), 3)  # -> (N, C, height, width)
    return x
