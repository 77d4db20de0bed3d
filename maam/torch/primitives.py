"""The primitives of `maam.spec` as PyTorch modules. The rest of this backend is independent of the architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from maam import spec
from maam.spec import Parameter
from maam.spec.graph import Step
from maam.spec.pooling import AXES
from maam.spec.rearrange import Parsed, parse, plan


def initialize(module: nn.Module, parameters: Iterable[Parameter]) -> None:
    """Draw the arrays of a module, without those of its children.

    Args:
        module: the module.
        parameters: its own parameters, with local names.
    """
    for parameter in parameters:
        distribution, value = parameter.init
        array = getattr(module, parameter.name)
        if distribution == "constant":
            nn.init.constant_(array, value)
        elif distribution == "uniform":
            nn.init.uniform_(array, -value, value)
        else:
            nn.init.normal_(array, 0.0, value)


Options = dict[str, Any]
"""The keyword arguments `device` and `dtype` of modules with arrays."""


class _Initialized(nn.Module):
    """Base of the modules that draw their arrays from the distributions in the spec, not from PyTorch's defaults."""

    spec: spec.Node | None = None

    def reset_parameters(self) -> None:
        """Draw the parameters of this module again with PyTorch's generator."""
        if self.spec is not None:
            initialize(self, self.spec.own_parameters())


class Conv2d(_Initialized, nn.Conv2d):
    """`spec.Conv2d`: (N, in_channels, H, W) to (N, out_channels, H', W')."""

    def __init__(self, node: spec.Conv2d, **options: Any) -> None:
        super().__init__(
            node.in_channels,
            node.out_channels,
            node.kernel_size,
            stride=node.stride,
            padding=node.padding,
            dilation=node.dilation,
            groups=node.groups,
            bias=node.bias,
            **options,
        )
        self.spec = node
        self.reset_parameters()


class Linear(_Initialized, nn.Linear):
    """`spec.Linear`: (N, in_features) to (N, out_features)."""

    def __init__(self, node: spec.Linear, **options: Any) -> None:
        super().__init__(node.in_features, node.out_features, bias=node.bias, **options)
        self.spec = node
        self.reset_parameters()


class Conv1d(_Initialized, nn.Conv1d):
    """`spec.Conv1d`: (N, in_channels, L) to (N, out_channels, L')."""

    def __init__(self, node: spec.Conv1d, **options: Any) -> None:
        super().__init__(
            node.in_channels, node.out_channels, node.kernel_size, padding=node.padding, bias=node.bias, **options
        )
        self.spec = node
        self.reset_parameters()


class RowRNN(_Initialized):
    """`spec.RNN`: (N, C, H, W) to the last state (N, hidden_size).

    It is not an nn.RNN, which torch.compile does not support.
    """

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def __init__(self, node: spec.RNN, **options: Any) -> None:
        super().__init__()
        for parameter in node.own_parameters():
            self.register_parameter(parameter.name, nn.Parameter(torch.empty(parameter.shape, **options)))
        self.spec = node
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        """Return the state after reading the rows from top to bottom."""
        rows = x.transpose(1, 2).flatten(2)  # (N, C, H, W) -> (N, H, C * W)
        inputs = functional.linear(rows, self.weight_ih_l0, self.bias_ih_l0)  # (N, H, hidden_size)
        return _last_state(inputs, self.weight_hh_l0, self.bias_hh_l0)

    def extra_repr(self) -> str:
        """Return the sizes of a row and of the state."""
        hidden_size, input_size = self.weight_ih_l0.shape
        return f"{input_size}, {hidden_size}"


def _last_state(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return the last of h_t = tanh(inputs_t + weight h_{t-1} + bias), h_0 = 0: (N, steps, hidden) to (N, hidden)."""
    state = torch.zeros_like(inputs[:, 0])
    for step in inputs.unbind(1):
        state = torch.tanh(step + functional.linear(state, weight, bias))
    return state


torch.fx.wrap("_last_state")  # symbolic tracing cannot iterate over a map's rows


class Abs(nn.Module):
    """`spec.Activation` abs: any shape to the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        """Return |x|."""
        return x.abs()


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "hard_swish": nn.Hardswish,
    "sigmoid": nn.Sigmoid,
    "hard_sigmoid": nn.Hardsigmoid,
    "tanh": nn.Tanh,
    "softmax": nn.Softmax,
    "identity": nn.Identity,
    "abs": Abs,
}
NORMS: dict[str, type[nn.Module]] = {"batch_norm": nn.BatchNorm2d, "identity": nn.Identity}


class GlobalPool(nn.Module):
    """`spec.GlobalPool`: (N, C, H, W) to the same with size 1 along the axes."""

    def __init__(self, node: spec.GlobalPool) -> None:
        super().__init__()
        self.function = node.function
        self.axes = node.axes

    def forward(self, x: Tensor) -> Tensor:
        """Return the statistic."""
        if self.function == "std":
            return standard_deviation(x, list(self.axes))
        if self.function == "var":
            return variance(x, list(self.axes))
        if self.function == "max":
            return x.amax(self.axes, keepdim=True)
        return x.sum(self.axes, keepdim=True) if self.function == "sum" else x.mean(self.axes, keepdim=True)

    def extra_repr(self) -> str:
        """Return the statistic and its axes."""
        return f"{self.function}, axes={self.axes}"


def standard_deviation(x: Tensor, axes: list[int]) -> Tensor:
    """Return the unbiased standard deviation over `axes`, which are kept with size 1.

    It is computed in float32 or wider. Where all values are equal it is 0, with gradient 0.
    """
    squares, degrees = _squares(x, axes)
    positive = squares > 0  # the slope of the root at 0 is infinite, so a constant is used there
    root = torch.where(positive, squares, 1.0).div(degrees).sqrt()
    return torch.where(positive, root, 0.0).to(x.dtype)


def variance(x: Tensor, axes: list[int]) -> Tensor:
    """Return the unbiased variance over `axes`, which are kept with size 1; it is computed in float32 or wider."""
    squares, degrees = _squares(x, axes)
    return squares.div(degrees).to(x.dtype)


def _squares(x: Tensor, axes: list[int]) -> tuple[Tensor, int]:
    """Return the sum of the squared distances to the mean, and the number of values less 1, but at least 1."""
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    count = 1
    for axis in axes:
        count = count * x.shape[axis]
    degrees = count - 1 + 1 // count  # max would not work if sizes are free
    return (wide - wide.mean(axes, keepdim=True)).square().sum(axes, keepdim=True), degrees


for _name in ("standard_deviation", "variance"):
    torch.fx.wrap(_name)  # symbolic tracing does not know the number of values


class Softmax(nn.Module):
    """`spec.Softmax`: (N, C, H, W) to the same shape."""

    def __init__(self, node: spec.Softmax) -> None:
        super().__init__()
        self.axis = node.axis

    def forward(self, x: Tensor) -> Tensor:
        """Return softmax along the axis."""
        if self.axis == "spatial":
            return torch.softmax(x.flatten(2), -1).view_as(x)  # over H * W of (N, C, H * W)
        return torch.softmax(x, AXES[self.axis][0])

    def extra_repr(self) -> str:
        """Return the axis."""
        return self.axis


class TopK(nn.Module):
    """`spec.TopK`: (N, C, ...) to (N, k, ...)."""

    def __init__(self, node: spec.TopK) -> None:
        super().__init__()
        self.k = node.k

    def forward(self, x: Tensor) -> Tensor:
        """Return the k largest values along the channels, in descending order."""
        return x.topk(self.k, 1).values

    def extra_repr(self) -> str:
        """Return k."""
        return f"k={self.k}"


class Rearrange(nn.Module):
    """`spec.Rearrange`: a batch to a batch with other axes."""

    def __init__(self, node: spec.Rearrange) -> None:
        super().__init__()
        self.pattern = node.pattern
        self._parsed = parse(node.pattern)

    def forward(self, x: Tensor) -> Tensor:
        """Return x with its axes, except the batch, rearranged."""
        return rearrange(x, self._parsed)

    def extra_repr(self) -> str:
        """Return the pattern."""
        return repr(self.pattern)


def rearrange(x: Tensor, pattern: Parsed) -> Tensor:
    """Return x with its axes, except the batch, rearranged by the pattern of a `spec.Rearrange`."""
    found = plan(pattern, tuple(x.shape[1:]))
    batch = x.shape[0]
    y = x.reshape(batch, *found.split)
    if found.order != tuple(range(len(found.order))):  # torch.compile takes any permute before `@` for a transposition
        y = y.permute(0, *(axis + 1 for axis in found.order))
    if found.single != found.full:
        y = y.reshape(batch, *found.single).expand(batch, *found.full)
    return y.reshape(batch, *found.merged)


torch.fx.wrap("rearrange")  # symbolic tracing does not know the sizes


def _activation(node: spec.Activation) -> nn.Module:
    arguments: Options = {"leaky_relu": {"negative_slope": node.negative_slope}, "softmax": {"dim": 1}}
    return ACTIVATIONS[node.function](**arguments.get(node.function, {}))


def _batch_norm(node: spec.BatchNorm2d, **options: Any) -> nn.Module:
    return nn.BatchNorm2d(node.num_features, eps=node.eps, momentum=node.momentum, **options)


def _global_pool(node: spec.GlobalPool) -> nn.Module:
    native = {"avg": nn.AdaptiveAvgPool2d, "max": nn.AdaptiveMaxPool2d}
    if node.axis == "spatial" and node.function in native:
        return native[node.function](1)
    return GlobalPool(node)


class GroupNorm(nn.GroupNorm):
    """`spec.GroupNorm`: (N, C, H, W) to the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized map."""
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return the normalized map (N, C, H, W); groups of a single value become the bias, with gradient 0.

    PyTorch's module refuses a single value, and its function amplifies the rounding error of the mean by 1 / sqrt(eps).
    """
    if x.shape[1] * x.shape[2] * x.shape[3] == groups:
        return (x - x) * weight[:, None, None] + bias[:, None, None]
    return torch.group_norm(x, groups, weight, bias, eps)


torch.fx.wrap("group_norm")  # symbolic tracing does not know the sizes


def _group_norm(node: spec.GroupNorm, **options: Any) -> nn.Module:
    return GroupNorm(node.num_groups, node.num_channels, node.eps, **options)


def _avg_pool(node: spec.AvgPool2d) -> nn.Module:
    return nn.AvgPool2d(node.kernel_size, node.step, node.padding, count_include_pad=False)


WITH_ARRAYS: dict[type[spec.Node], Callable[..., nn.Module]] = {
    spec.Conv2d: Conv2d,
    spec.Conv1d: Conv1d,
    spec.Linear: Linear,
    spec.RNN: RowRNN,
    spec.BatchNorm2d: _batch_norm,
    spec.GroupNorm: _group_norm,
}
WITHOUT_ARRAYS: dict[type[spec.Node], Callable[[Any], nn.Module]] = {
    spec.Activation: _activation,
    spec.MaxPool2d: lambda node: nn.MaxPool2d(node.kernel_size, node.step, node.padding),
    spec.AvgPool2d: _avg_pool,
    spec.AdaptiveAvgPool2d: lambda node: nn.AdaptiveAvgPool2d(node.output_size),
    spec.GlobalPool: _global_pool,
    spec.Softmax: Softmax,
    spec.TopK: TopK,
    spec.Rearrange: Rearrange,
    spec.Flatten: lambda node: nn.Flatten(1),
    spec.Unflatten: lambda node: nn.Unflatten(1, (-1, 1, 1)),
    spec.Dropout: lambda node: nn.Dropout(node.p),
    spec.Identity: lambda node: nn.Identity(),
}


def resize(x: Tensor, height: int, width: int) -> Tensor:
    """Resize (N, C, H, W) to (N, C, height, width) by nearest neighbor, source index floor(i * in / out).

    The memory format is kept.
    """
    channels_last = x.stride(1) < x.stride(3)
    y = x.permute(0, 2, 3, 1) if channels_last else x  # index_select gives a contiguous result
    first = 1 if channels_last else 2
    for axis, size in ((first, height), (first + 1, width)):
        index = torch.arange(size, device=y.device) * y.shape[axis] // size
        y = y.index_select(axis, index)
    return y.permute(0, 3, 1, 2) if channels_last else y


def fold(x: Tensor, groups: int) -> Tensor:
    """Return groups of channels as separate samples: (N, groups * C, ...) to (N * groups, C, ...)."""
    return x.reshape(x.shape[0] * groups, x.shape[1] // groups, *x.shape[2:])


def unfold(x: Tensor, groups: int) -> Tensor:
    """Return the inverse of `fold`."""
    return x.reshape(x.shape[0] // groups, x.shape[1] * groups, *x.shape[2:])


for _name in ("fold", "unfold"):
    torch.fx.wrap(_name)  # symbolic tracing cannot iterate over a shape


def widen(x: Tensor) -> Tensor:
    """Return float16 as float32, and other dtypes unchanged."""
    return x.float() if x.dtype == torch.float16 else x


def narrow(y: Tensor, x: Tensor) -> Tensor:
    """Return y as float16 if x, which `widen` changed, is float16; otherwise unchanged."""
    return y.half() if x.dtype == torch.float16 else y


OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "matmul": lambda a, b: a @ b,
    "square": lambda a: a * a,
    "sqrt": lambda a: a**0.5,
    "rsqrt": lambda a: a**-0.5,
    "concat": lambda *values: torch.cat(values, 1),
    "stack": lambda *values: torch.cat(values, 2),
    "like": lambda a, b: a.reshape(b.shape),
    "resize": lambda a, b: resize(a, b.shape[2], b.shape[3]),
    "first": lambda a, b: a[:, :, : b.shape[2]],
    "last": lambda a, b: a[:, :, a.shape[2] - b.shape[2] :],
    "fold": lambda a, groups: fold(a, groups),
    "unfold": lambda a, groups: unfold(a, groups),
    "channels": lambda a, start, stop: a[:, start:stop],
    "number": lambda value: value,
}
"""The operations of the formulas of `spec.Graph`."""


def operate(step: Step, values: Sequence[Any]) -> Any:
    """Return the result of an operation of a formula, other than a call, on its values."""
    return OPERATIONS[step.op](*values, *step.numbers)
