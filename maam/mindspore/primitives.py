"""The primitives of `maam.spec` as MindSpore cells. The rest of this backend is independent of the architecture."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common import initializer as native
from mindspore.common.initializer import initializer
from mindspore.ops import constexpr

from maam import spec
from maam.errors import ShapeError
from maam.mindspore.arrays import mindspore_name
from maam.spec import Node
from maam.spec.pooling import AXES, averaging_matrix
from maam.spec.rearrange import parse, plan


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


def add_parameters(cell: nn.Cell, parameters: Iterable[spec.Parameter]) -> None:
    """Add the arrays of a layer to a cell, in float32, under MindSpore's names."""
    for parameter in parameters:
        name = mindspore_name(parameter.name, parameter.role)
        initial = initializer(initializer_of(parameter), parameter.shape, mstype.float32)
        setattr(cell, name, Parameter(initial, name=name))


def convert(parameter: Parameter, dtype: Any) -> None:
    """Convert a parameter, in place. With NumPy 2, MindSpore cannot draw one in bfloat16, so all start in float32."""
    if parameter.dtype != dtype:
        parameter.set_dtype(dtype)


class _Primitive(nn.SequentialCell):
    """Base of the cells of this module.

    It is a chain without cells, because mixed precision of level O1 copies the source of other cells, and of the
    functions that they call, into another module, where their names are not defined. So O1 leaves these cells as they
    are.
    """

    def __bool__(self) -> bool:
        return True


class Tanh(_Primitive):
    """`spec.Activation` tanh: any shape to the same shape."""

    def construct(self, x: Tensor) -> Tensor:
        """Return 2 sigmoid(2 x) - 1: MindSpore's own tanh has an error of 1e-4 near 5 on CPUs."""
        return 2 * ops.sigmoid(2 * x) - 1


class Abs(_Primitive):
    """`spec.Activation` abs: any shape to the same shape."""

    def construct(self, x: Tensor) -> Tensor:
        """Return |x|."""
        return ops.abs(x)


def softmax(x: Tensor, axis: int | tuple[int, ...]) -> Tensor:
    """Return exp(x - max) / sum over `axis`, with the shape of x.

    It replaces `ops.softmax`, whose gradient can be wrong in PyNative mode on CPUs: after hundreds of other models in
    the same process, it was that of an axis of size 1 (`tests/parity/test_random_specs.py`).
    """
    powers = ops.Exp()(x - ops.stop_gradient(ops.ReduceMax(keep_dims=True)(x, axis)))
    return powers / ops.ReduceSum(keep_dims=True)(powers, axis)


class Softmax(_Primitive):
    """`spec.Softmax`, and `spec.Activation` softmax over the channels: any shape to the same shape."""

    def __init__(self, axes: tuple[int, ...] = (1,)) -> None:
        super().__init__()
        self.axes = axes

    def construct(self, x: Tensor) -> Tensor:
        """Return softmax over the axes."""
        return softmax(x, self.axes)


class TopK(_Primitive):
    """`spec.TopK`: (N, C, ...) to (N, k, ...)."""

    def __init__(self, node: spec.TopK) -> None:
        super().__init__()
        self.k = node.k

    def construct(self, x: Tensor) -> Tensor:
        """Return the k largest values along the channels, in descending order."""
        return ops.topk(x, self.k, 1)[0]


class Rearrange(_Primitive):
    """`spec.Rearrange`: a batch to a batch with other axes."""

    def __init__(self, node: spec.Rearrange) -> None:
        super().__init__()
        self.pattern = node.pattern
        self._sizes, self._order, self._full, self._merged = _free_plan(node.pattern)

    def construct(self, x: Tensor) -> Tensor:
        """Return x with its axes, except the batch, rearranged."""
        if _is_free(x.shape):
            return self._rearrange_free(x)
        split, order, single, full, merged = _plan(self.pattern, x.shape)
        y = ops.transpose(ops.reshape(x, split), order)
        if single != full:
            y = ops.broadcast_to(ops.reshape(y, single), full)
        return ops.reshape(y, merged)

    def _rearrange_free(self, x: Tensor) -> Tensor:
        """Return the same in a graph in which height or width are free: sizes are computed when it runs."""
        sizes = ()
        for axis, known, stated in self._sizes:
            sizes = sizes + (stated if axis < 0 else x.shape[axis] // known,)
        split, single, full, merged = (x.shape[0],), (x.shape[0],), (x.shape[0],), (x.shape[0],)
        for index in range(len(self._order) - 1):
            split = split + (sizes[index],)
        y = ops.transpose(ops.reshape(x, split), self._order)
        for index, is_new in self._full:
            single = single + (1 if is_new else sizes[index],)
            full = full + (sizes[index],)
        if single != full:
            y = ops.broadcast_to(ops.reshape(y, single), full)
        for group in self._merged:
            size = 1
            for index in group:
                size = size * sizes[index]
            merged = merged + (size,)
        return ops.reshape(y, merged)


@constexpr  # type: ignore[untyped-decorator]
def _is_free(shape: tuple[Any, ...]) -> bool:
    """Return whether a size other than the batch is only known when the graph runs."""
    return None in shape[1:]


@constexpr  # type: ignore[untyped-decorator]
def _plan(pattern: str, shape: tuple[Any, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the plan of a pattern with the batch in front, -1 if it is free."""
    found = plan(parse(pattern), tuple(shape[1:]))
    batch = -1 if shape[0] is None else shape[0]
    order = (0, *(axis + 1 for axis in found.order))
    return (batch, *found.split), order, (batch, *found.single), (batch, *found.full), (batch, *found.merged)


def _free_plan(pattern: str) -> tuple[tuple[Any, ...], ...]:
    """Return a pattern as plain tuples for sizes that are computed later.

    Returns:
        For each name of an axis, those of the left side first: the axis of the input, the product of the stated sizes
        in its group, and its stated size; the axis is -1 if the size is stated. The order of the transposition. The
        names of the right side by index, each with whether it is new. The groups of the right side.
    """
    left, right, stated = parse(pattern)
    given = dict(stated)
    sizes = {}
    for axis, group in enumerate(left, start=1):
        known = math.prod(given.get(name, 1) for name in group)
        for name in group:
            sizes[name] = (-1, 1, given[name]) if name in given else (axis, known, 0)
    before = list(sizes)
    after = [name for group in right for name in group]
    sizes.update({name: (-1, 1, given[name]) for name in after if name not in sizes})
    names = list(sizes)
    order = (0, *(before.index(name) + 1 for name in after if name in before))
    full = tuple((names.index(name), name not in before) for name in after)
    return tuple(sizes.values()), order, full, tuple(tuple(names.index(name) for name in group) for group in right)


class AdaptiveAvgPool2d(_Primitive):
    """`spec.AdaptiveAvgPool2d`: (N, C, H, W) to (N, C, output_size, output_size)."""

    def __init__(self, node: spec.AdaptiveAvgPool2d) -> None:
        super().__init__()
        self.output_size = node.output_size

    def construct(self, x: Tensor) -> Tensor:
        """Return the means, by products with two matrices: MindSpore's own operator cannot be exported to ONNX."""
        if _is_free(x.shape):
            return ops.adaptive_avg_pool2d(x, self.output_size)
        rows = ops.cast(_averaging(x.shape[2], self.output_size), x.dtype)  # (output_size, H)
        columns = ops.cast(_averaging(x.shape[3], self.output_size), x.dtype)  # (output_size, W)
        return ops.matmul(ops.matmul(rows, x), ops.transpose(columns, (1, 0)))  # (N, C, output_size, output_size)


@constexpr  # type: ignore[untyped-decorator]
def _averaging(size: int, output_size: int) -> Tensor:
    return Tensor(np.array(averaging_matrix(size, output_size)), mstype.float32)


class Conv1d(_Primitive):
    """`spec.Conv1d`: (N, in_channels, L) to (N, out_channels, L').

    It is not an nn.Conv1d, whose weight has four dimensions.
    """

    def __init__(self, node: spec.Conv1d) -> None:
        super().__init__()
        self.kernel_size, self.padding, self.has_bias = node.kernel_size, node.padding, node.bias
        add_parameters(self, node.own_parameters())
        pad = (0, 0, node.padding, node.padding)
        self.conv2d = ops.Conv2D(node.out_channels, (1, node.kernel_size), pad_mode="pad", pad=pad)

    def construct(self, x: Tensor) -> Tensor:
        """Return the convolution."""
        y = self.conv2d(ops.expand_dims(x, 2), ops.expand_dims(self.weight, 2))  # (N, out_channels, 1, L')
        y = ops.reshape(y, (y.shape[0], y.shape[1], y.shape[3]))  # (N, out_channels, L')
        return y + ops.reshape(self.bias, (1, -1, 1)) if self.has_bias else y


class GroupNorm(_Primitive):
    """`spec.GroupNorm`: (N, C, H, W) to the same shape."""

    def __init__(self, node: spec.GroupNorm) -> None:
        super().__init__()
        self.num_groups, self.eps = node.num_groups, node.eps
        add_parameters(self, node.own_parameters())  # gamma and beta

    def construct(self, x: Tensor) -> Tensor:
        """Return the normalized map; the statistics are computed in float32 or wider."""
        groups = ops.reshape(_wide(x), (x.shape[0], self.num_groups, -1))  # (N, groups, C / groups * H * W)
        centered = groups - ops.mean(groups, 2, True)
        normal = centered / ops.sqrt(ops.mean(ops.square(centered), 2, True) + self.eps)
        y = ops.cast(ops.reshape(normal, x.shape), x.dtype)  # (N, C, H, W)
        each = (1, -1, 1, 1)  # one value for each channel
        return y * ops.reshape(self.gamma, each) + ops.reshape(self.beta, each)


class RowRNN(_Primitive):
    """`spec.RNN`: (N, C, H, W) to the last state (N, hidden_size)."""

    def __init__(self, node: spec.RNN) -> None:
        super().__init__()
        add_parameters(self, node.own_parameters())
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


class GlobalPool(_Primitive):
    """`spec.GlobalPool`: (N, C, H, W) to the same with size 1 along the axes."""

    def __init__(self, node: spec.GlobalPool) -> None:
        super().__init__()
        self.function = node.function
        self.axes = node.axes

    def construct(self, x: Tensor) -> Tensor:
        """Return the statistic."""
        if self.function == "std":
            return standard_deviation(x, self.axes)
        if self.function == "var":
            return variance(x, self.axes)
        if self.function == "max":
            return ops.amax(x, self.axes, True)
        if self.function == "sum":
            return ops.cast(ops.mean(_wide(x), self.axes, True) * _size(x, self.axes), x.dtype)
        return ops.mean(x, self.axes, True)

    def extend_repr(self) -> str:
        """Return the statistic and its axes."""
        return f"{self.function}, axes={self.axes}"


def _wide(x: Tensor) -> Tensor:
    """Return x in float32 or wider."""
    return ops.cast(x, mstype.float32) if x.dtype in (mstype.float16, mstype.bfloat16) else x


def _size(x: Tensor, axes: tuple[int, ...]) -> int:
    count = 1
    for axis in axes:
        count = count * x.shape[axis]
    return count


def _degrees(x: Tensor, axes: tuple[int, ...]) -> int:
    """Return the number of values less 1, but at least 1, in operators that also work if sizes are free."""
    size = _size(x, axes)
    return size - 1 + 1 // size


def standard_deviation(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the unbiased standard deviation over `axes`, which are kept with size 1.

    It is computed in float32 or wider. Where all values are equal it is 0, with gradient 0.
    """
    squares = _squares(x, axes)
    positive = squares > 0  # the slope of the root at 0 is infinite, so a constant is used there
    root = ops.sqrt(ops.select(positive, squares, ops.ones_like(squares)) / _degrees(x, axes))
    return ops.cast(ops.select(positive, root, ops.zeros_like(root)), x.dtype)


def variance(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the unbiased variance over `axes`, which are kept with size 1; it is computed in float32 or wider."""
    return ops.cast(_squares(x, axes) / _degrees(x, axes), x.dtype)


def _squares(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the sum of the squared distances to the mean."""
    wide = _wide(x)
    return ops.mean(ops.square(wide - ops.mean(wide, axes, True)), axes, True) * _size(x, axes)


class Unflatten(_Primitive):
    """`spec.Unflatten`: (N, C) to (N, C, 1, 1)."""

    def construct(self, x: Tensor) -> Tensor:
        """Append two axes of size 1."""
        return x.reshape(x.shape + (1, 1))  # (N, C) -> (N, C, 1, 1)


class Flatten(_Primitive):
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
    "abs": Abs,
}
NORMS: dict[str, Any] = {"batch_norm": nn.BatchNorm2d, "identity": nn.Identity}


def _activation(node: spec.Activation) -> nn.Cell:
    arguments: dict[str, dict[str, Any]] = {
        "leaky_relu": {"alpha": node.negative_slope},
        "gelu": {"approximate": False},
    }
    return {**ACTIVATIONS, "tanh": Tanh, "softmax": Softmax}[node.function](**arguments.get(node.function, {}))


def _conv2d(node: spec.Conv2d) -> nn.Cell:
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
    )


def _linear(node: spec.Linear) -> nn.Cell:
    return nn.Dense(node.in_features, node.out_features, has_bias=node.bias, **weight_and_bias(node))


def _batch_norm(node: spec.BatchNorm2d) -> nn.Cell:
    # Momentum is the weight of the old value in MindSpore, and of the new value in PyTorch and in the spec.
    layer = nn.BatchNorm2d(node.num_features, eps=node.eps, momentum=1 - node.momentum)
    layer.bn_train.recompute(False)  # a second run in the backward pass would update the running statistics again
    return layer


def _max_pool(node: spec.MaxPool2d) -> nn.Cell:
    return nn.MaxPool2d(node.kernel_size, node.step, **_padding(node.padding))


def _avg_pool(node: spec.AvgPool2d) -> nn.Cell:
    return nn.AvgPool2d(node.kernel_size, node.step, **_padding(node.padding), count_include_pad=False)


def _padding(padding: int) -> dict[str, Any]:
    return {"pad_mode": "pad", "padding": padding} if padding else {"pad_mode": "valid"}


WITH_ARRAYS: dict[type[spec.Node], Callable[..., nn.Cell]] = {
    spec.Conv2d: _conv2d,
    spec.Conv1d: Conv1d,
    spec.Linear: _linear,
    spec.RNN: RowRNN,
    spec.BatchNorm2d: _batch_norm,
    spec.GroupNorm: GroupNorm,
}
WITHOUT_ARRAYS: dict[type[spec.Node], Callable[[Any], nn.Cell]] = {
    spec.Activation: _activation,
    spec.MaxPool2d: _max_pool,
    spec.AvgPool2d: _avg_pool,
    spec.AdaptiveAvgPool2d: AdaptiveAvgPool2d,
    spec.GlobalPool: GlobalPool,
    spec.Softmax: lambda node: Softmax(AXES[node.axis]),
    spec.TopK: TopK,
    spec.Rearrange: Rearrange,
    spec.Unflatten: lambda node: Unflatten(),
    spec.Flatten: lambda node: Flatten(),
    spec.Dropout: lambda node: nn.Dropout(p=node.p),
    spec.Identity: lambda node: nn.Identity(),
}


@constexpr  # type: ignore[untyped-decorator]
def _source_index(size: int | None, target: int | None) -> Tensor:
    if size is None or target is None:
        raise ShapeError(
            "a graph with a free height or width cannot resize a map; pass both sizes to set_inputs, with a free batch"
        )
    return Tensor(np.arange(target) * size // target, mstype.int32)


def resize(x: Tensor, height: int, width: int) -> Tensor:
    """Resize (N, C, H, W) to (N, C, height, width) by nearest neighbor, source index floor(i * in / out)."""
    if x.shape[2] != height:
        x = ops.Gather()(x, _source_index(x.shape[2], height), 2)  # (N, C, H, W) -> (N, C, height, W)
    if x.shape[3] != width:
        x = ops.Gather()(x, _source_index(x.shape[3], width), 3)  # -> (N, C, height, width)
    return x


def operate(op: str, values: tuple[Any, ...], numbers: tuple[Any, ...]) -> Any:
    """Return the result of an operation of a formula of `spec.Graph`, other than a call.

    Args:
        op: the name of the operation.
        values: its operands.
        numbers: its constants.
    """
    if op == "number":
        return numbers[0]
    if op in ("concat", "stack"):
        return ops.cat(values, 1 if op == "concat" else 2)
    if op in ("add", "sub", "mul", "div"):
        return _arithmetic(op, values[0], values[1])
    if op in ("square", "sqrt", "rsqrt"):
        return _power(op, values[0])
    if op in ("fold", "unfold", "channels"):
        return _by_channels(op, values[0], numbers)
    return _by_another(op, values[0], values[1])


def _arithmetic(op: str, a: Any, b: Any) -> Any:
    if op == "add":
        return a + b
    if op == "sub":
        return a - b
    return a * b if op == "mul" else a / b


def _power(op: str, a: Any) -> Any:
    if op == "square":
        return a * a
    root = ops.sqrt(a)
    return root if op == "sqrt" else 1 / root


def _by_channels(op: str, a: Tensor, numbers: tuple[int, ...]) -> Tensor:
    if op == "channels":
        return a[:, numbers[0] : numbers[1]]
    factor = numbers[0]
    channels = a.shape[1] // factor if op == "fold" else a.shape[1] * factor
    return ops.reshape(a, (-1, channels) + a.shape[2:])


def _by_another(op: str, a: Tensor, b: Tensor) -> Tensor:
    if op == "like":
        return ops.reshape(a, b.shape)
    if op == "resize":
        return resize(a, b.shape[2], b.shape[3])
    if op == "first":
        return a[:, :, : b.shape[2]]
    if op == "last":
        return a[:, :, a.shape[2] - b.shape[2] :]
    # ops.matmul fails in the backward pass of (1, n, 1) @ (1, 1, n), and BatchMatMul does not broadcast an array.
    return ops.BatchMatMul()(a, b) if a.ndim == b.ndim else ops.matmul(a, b)
