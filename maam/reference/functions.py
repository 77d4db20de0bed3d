"""The primitives of `maam.spec` in NumPy and float64. Each function is a direct definition, not optimized for speed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from maam import spec
from maam.spec.graph import Step
from maam.spec.pooling import averaging_matrix
from maam.spec.rearrange import parse, plan

Array = np.ndarray[Any, Any]


def conv2d(x: Array, node: spec.Conv2d, weight: Array, bias: Array | None) -> Array:
    """Return the convolution: (N, in_channels, H, W) to (N, out_channels, H', W')."""
    extent = node.dilation * (node.kernel_size - 1) + 1
    padded = _pad(x, node.padding, 0.0)
    views = _windows(padded, extent, node.stride)[..., :: node.dilation, :: node.dilation]
    n, _, height, width, *_ = views.shape  # (N, C, H', W', k, k)
    fan_in = math.prod(weight.shape[1:])
    columns = views.transpose(0, 2, 3, 1, 4, 5).reshape(n, height * width, node.groups, fan_in)
    columns = columns.transpose(0, 2, 1, 3)  # (N, groups, H' * W', C / groups * k * k)
    matrix = weight.reshape(node.groups, node.out_channels // node.groups, -1).transpose(0, 2, 1)
    y = (columns @ matrix).transpose(0, 1, 3, 2).reshape(n, node.out_channels, height, width)
    return np.asarray(y if bias is None else y + bias[:, None, None])


def conv1d(x: Array, node: spec.Conv1d, weight: Array, bias: Array | None) -> Array:
    """Return the convolution: (N, in_channels, L) to (N, out_channels, L')."""
    padded = np.pad(x, ((0, 0), (0, 0), (node.padding, node.padding)))
    views = np.lib.stride_tricks.sliding_window_view(padded, node.kernel_size, axis=2)
    y = np.einsum("nclk,ock->nol", views, weight)
    return np.asarray(y if bias is None else y + bias[:, None])


def linear(x: Array, weight: Array, bias: Array | None) -> Array:
    """Return x W^T + b: (N, in_features) to (N, out_features), or the same for tokens (N, L, in_features)."""
    y = x @ weight.T
    return np.asarray(y if bias is None else y + bias)


def rnn(x: Array, weight_ih: Array, weight_hh: Array, bias_ih: Array, bias_hh: Array) -> Array:
    """Return the last state of a tanh recurrent layer over the rows: (N, C, H, W) to (N, hidden_size)."""
    rows = x.transpose(2, 0, 1, 3).reshape(x.shape[2], x.shape[0], x.shape[1] * x.shape[3])  # (H, N, C * W)
    state = np.zeros((x.shape[0], len(weight_hh)))
    for row in rows:
        state = np.tanh(row @ weight_ih.T + bias_ih + state @ weight_hh.T + bias_hh)
    return state


def batch_norm(x: Array, weight: Array, bias: Array, mean: Array, var: Array, eps: float) -> Array:
    """Return x normalized with the given mean and variance, (N, C, H, W)."""
    scale = weight / np.sqrt(var + eps)
    return (x - mean[:, None, None]) * scale[:, None, None] + bias[:, None, None]


def batch_statistics(x: Array) -> tuple[Array, Array, Array]:
    """Return mean, biased variance and unbiased variance of each channel of (N, C, H, W), each (C,)."""
    mean = x.mean((0, 2, 3))
    squares = ((x - mean[:, None, None]) ** 2).sum((0, 2, 3))
    count = x.size // x.shape[1]
    return mean, squares / count, squares / max(count - 1, 1)


def group_norm(x: Array, node: spec.GroupNorm, weight: Array, bias: Array) -> Array:
    """Return x normalized with the mean and the biased variance of each group of channels, (N, C, H, W)."""
    groups = x.reshape(len(x), node.num_groups, math.prod(x.shape[1:]) // node.num_groups)
    centered = groups - groups.mean(2, keepdims=True)
    normal = centered / np.sqrt((centered**2).mean(2, keepdims=True) + node.eps)
    return normal.reshape(x.shape) * weight[:, None, None] + bias[:, None, None]


def max_pool2d(x: Array, kernel_size: int, stride: int, padding: int) -> Array:
    """Return the maximum of each window: (N, C, H, W) to (N, C, H', W')."""
    return _windows(_pad(x, padding, -np.inf), kernel_size, stride).max((-2, -1))


def avg_pool2d(x: Array, kernel_size: int, stride: int, padding: int = 0) -> Array:
    """Return the mean of each window without its padding: (N, C, H, W) to (N, C, H', W')."""
    count = _windows(_pad(np.ones((1, 1, *x.shape[2:])), padding, 0.0), kernel_size, stride).sum((-2, -1))
    return np.asarray(_windows(_pad(x, padding, 0.0), kernel_size, stride).sum((-2, -1)) / count)


def adaptive_avg_pool2d(x: Array, output_size: int) -> Array:
    """Return the means of output_size x output_size regions: (N, C, H, W) to (N, C, output_size, output_size)."""
    rows, columns = (np.array(averaging_matrix(size, output_size)) for size in x.shape[2:])
    return np.asarray(rows @ x @ columns.T)


def global_pool(x: Array, node: spec.GlobalPool) -> Array:
    """Return a statistic along the axes of a node; they keep size 1."""
    axes = node.axes
    if node.function in ("std", "var"):
        squares = ((x - x.mean(axes, keepdims=True)) ** 2).sum(axes, keepdims=True)
        variance = squares / max(math.prod(x.shape[axis] for axis in axes) - 1, 1)
        return np.sqrt(variance) if node.function == "std" else variance
    if node.function == "max":
        return x.max(axes, keepdims=True)
    return x.sum(axes, keepdims=True) if node.function == "sum" else x.mean(axes, keepdims=True)


def top_k(x: Array, k: int) -> Array:
    """Return the k largest values along axis 1, in descending order."""
    return -np.sort(-x, axis=1)[:, :k]


def rearrange(x: Array, pattern: str) -> Array:
    """Return x with its axes, except the batch, rearranged by a pattern."""
    found = plan(parse(pattern), x.shape[1:])
    y = x.reshape(len(x), *found.split).transpose(0, *(axis + 1 for axis in found.order))
    y = np.broadcast_to(y.reshape(len(x), *found.single), (len(x), *found.full))
    return y.reshape(len(x), *found.merged)


def resize(x: Array, height: int, width: int) -> Array:
    """Return x resized to (N, C, height, width), nearest neighbor with the source index floor(i * in / out)."""
    rows = np.arange(height) * x.shape[2] // height
    columns = np.arange(width) * x.shape[3] // width
    return x[:, :, rows[:, None], columns]


def dropout(x: Array, p: float, generator: np.random.Generator) -> Array:
    """Return x with values set to 0 with probability p, and the others divided by 1 - p."""
    return np.where(generator.random(x.shape) < p, 0.0, x / (1 - p))


def softmax(x: Array, axis: int | tuple[int, ...] = 1) -> Array:
    """Return exp(x) / sum exp(x) along `axis`, one or several."""
    powers = np.exp(x - x.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def hard_sigmoid(x: Array) -> Array:
    """Return relu6(x + 3) / 6."""
    return np.clip(x + 3, 0, 6) / 6


_erf = np.vectorize(math.erf, otypes=[np.float64])

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: x * 0.5 * (1 + _erf(x / math.sqrt(2))),
    "silu": lambda x: x * sigmoid(x),
    "hard_swish": lambda x: x * hard_sigmoid(x),
    "sigmoid": sigmoid,
    "hard_sigmoid": hard_sigmoid,
    "tanh": np.tanh,
    "softmax": softmax,
    "identity": lambda x: x,
    "abs": np.abs,
}


def activation(x: Array, node: spec.Activation) -> Array:
    """Return the activation of x, with the shape of x."""
    if node.function == "leaky_relu":
        return np.where(x > 0, x, node.negative_slope * x)
    return ACTIVATIONS[node.function](x)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "matmul": lambda a, b: a @ b,
    "concat": lambda *values: np.concatenate(values, 1),
    "stack": lambda *values: np.concatenate(values, 2),
    "like": lambda a, b: a.reshape(b.shape),
    "first": lambda a, b: a[:, :, : b.shape[2]],
    "last": lambda a, b: a[:, :, a.shape[2] - b.shape[2] :],
    "fold": lambda a, groups: a.reshape(len(a) * groups, a.shape[1] // groups, *a.shape[2:]),
    "unfold": lambda a, groups: a.reshape(len(a) // groups, a.shape[1] * groups, *a.shape[2:]),
    "channels": lambda a, start, stop: a[:, start:stop],
    "resize": lambda a, b: resize(a, *b.shape[2:]),
    "square": np.square,
    "sqrt": np.sqrt,
    "rsqrt": lambda a: 1 / np.sqrt(a),
    "number": lambda value: value,
}


def operate(step: Step, values: Sequence[Any]) -> Any:
    """Return the result of an operation of a formula, other than a call, on its values."""
    return OPERATIONS[step.op](*values, *step.numbers)


def _pad(x: Array, padding: int, value: float) -> Array:
    sides = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    return np.pad(x, sides, constant_values=value) if padding else x


def _windows(x: Array, extent: int, stride: int) -> Any:
    """Return a view of all windows: (N, C, H, W) to (N, C, H', W', extent, extent)."""
    window = np.lib.stride_tricks.sliding_window_view
    views = window(x, (extent, extent), axis=(2, 3))  # type: ignore[call-overload, unused-ignore]  # NumPy 1
    return views[:, :, ::stride, ::stride]
