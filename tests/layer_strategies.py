"""Hypothesis strategies of single layers that fit an input shape; `tests.strategies` puts them together."""

from __future__ import annotations

from math import prod
from typing import get_args

from hypothesis import strategies as st

from maam.spec import (
    RNN,
    Activation,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    GlobalPool,
    Identity,
    Linear,
    MaxPool2d,
    Node,
    Shape,
    maam,
)
from maam.spec.parameters import WeightInit
from maam.spec.primitives import ActivationName, ElementwiseName

MAX_CHANNELS = 8
FUNCTIONS = get_args(ActivationName)

widths = st.integers(1, MAX_CHANNELS)
inits = st.sampled_from(get_args(WeightInit))
_statistics = st.sampled_from(["avg", "max", "std", "sum"])
global_pools = st.builds(GlobalPool, function=_statistics)
channel_pools = st.builds(GlobalPool, function=_statistics, axis=st.just("channels"))
activations = st.builds(
    Activation, function=st.sampled_from(FUNCTIONS), negative_slope=st.sampled_from([0.01, 0.3, 0.0])
)
plain = activations | st.sampled_from([Identity(), Dropout(p=0.0), Dropout(p=0.5)])
"""Layers without parameters that take any shape and keep it."""


@st.composite
def convs(draw: st.DrawFn, shape: Shape) -> Conv2d:
    """Any convolution; where the map is smaller than the kernel, padding makes up for it."""
    channels, *size = shape
    groups = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    kernel_size, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    extent = dilation * (kernel_size - 1) + 1
    least = max(0, -((min(size) - extent) // 2))
    return Conv2d(
        in_channels=channels,
        out_channels=groups * draw(st.integers(1, max(MAX_CHANNELS // groups, 1))),
        kernel_size=kernel_size,
        stride=draw(st.integers(1, 3)),
        padding=draw(st.integers(least, max(least, extent // 2 + 1))),
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
        init=draw(inits),
    )


@st.composite
def projections(draw: st.DrawFn, shape: Shape, features: int, stride: int = 1) -> Node:
    """(C, H, W) to (features, ceil(H / stride), ceil(W / stride)), or a vector to (features,)."""
    if len(shape) == 1:
        return draw(linears(shape, features))
    half, dilation = draw(st.integers(0, 2)), draw(st.integers(1, 2))
    return Conv2d(
        in_channels=shape[0],
        out_channels=features,
        kernel_size=2 * half + 1,
        stride=stride,
        padding=half * dilation,
        dilation=dilation,
        groups=shape[0] if features == shape[0] and draw(st.booleans()) else 1,
        bias=draw(st.booleans()),
        init=draw(inits),
    )


def linears(shape: Shape, features: int | None = None) -> st.SearchStrategy[Linear]:
    """A linear layer of a vector, to `features` or to any width."""
    out = widths if features is None else st.just(features)
    return st.builds(Linear, in_features=st.just(shape[0]), out_features=out, bias=st.booleans(), init=inits)


def rnns(shape: Shape) -> st.SearchStrategy[RNN]:
    """A recurrent layer over the rows of a map."""
    return st.builds(RNN, input_size=st.just(shape[0] * shape[2]), hidden_size=widths)


def batch_norms(shape: Shape) -> st.SearchStrategy[BatchNorm2d]:
    """Batch norm of a map, with the ends of momentum's range too."""
    settings = {"eps": st.sampled_from([1e-5, 1e-3]), "momentum": st.sampled_from([0.1, 0.0, 1.0])}
    return st.builds(BatchNorm2d, num_features=st.just(shape[0]), **settings)


@st.composite
def max_pools(draw: st.DrawFn, shape: Shape) -> MaxPool2d:
    """Max pooling, padded as far as allowed or needed."""
    kernel_size = draw(st.integers(1, 4))
    least = max(0, -((min(shape[1:]) - kernel_size) // 2))
    padding = draw(st.integers(least, kernel_size // 2))
    return MaxPool2d(kernel_size=kernel_size, stride=draw(st.none() | st.integers(1, 3)), padding=padding)


def avg_pools(shape: Shape) -> st.SearchStrategy[AvgPool2d]:
    """Average pooling with windows that overlap, touch or leave gaps."""
    sizes = st.integers(1, min(4, *shape[1:]))
    return st.builds(AvgPool2d, kernel_size=sizes, stride=st.none() | st.integers(1, 3))


@st.composite
def maams(draw: st.DrawFn, shape: Shape) -> Node:
    """MAAM with random hyperparameters, pooling no further than the map allows."""
    side, agents = min(shape[1:]), draw(st.integers(1, 3))
    pool = draw(st.sampled_from([p for p in ((1,), (2,), (3,), (1, 2), (2, 1), (2, 2)) if prod(p) <= side]))
    scales = st.integers(1, min(3, side // prod(pool)))
    kernels = st.sampled_from([1, 3, 5])
    return maam(
        shape[0],
        draw(st.none() | widths),
        hidden_channels=draw(st.none() | widths),
        num_agents=agents,
        kernel_sizes=draw(kernels | st.tuples(*[kernels] * agents)),
        scales=draw(scales | st.tuples(*[scales] * agents)),
        pool=pool,
        fusion=draw(st.sampled_from(["softmax", "mean", "dynamic"])),
        reduce=draw(st.booleans()),
        depthwise=draw(st.booleans()),
        act_layer=draw(st.sampled_from(get_args(ElementwiseName))),
        norm_layer=draw(st.sampled_from(["batch_norm", "identity"])),
    )
