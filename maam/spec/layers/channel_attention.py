"""Channel attention: effective SE, ECA, global context, gather-excite, gated channel transformation, selective kernel.

Each layer weights the channels of a feature map and keeps its shape.
"""

from __future__ import annotations

import math
from typing import Literal

from maam.spec.composites import OddSizes, as_tuple, composite
from maam.spec.containers import Parallel, Scale, Sequential
from maam.spec.fields import MAX_SIZE, Flag, OddSize, Positive, Real, Size
from maam.spec.graph import Graph
from maam.spec.layers.gates import GateName, Ratio, perceptron, reduced_width
from maam.spec.node import Node
from maam.spec.parameters import WeightInit
from maam.spec.pooling import AvgPool2d, GlobalPool, Softmax
from maam.spec.primitives import Activation, BatchNorm2d, Conv1d, Conv2d, ElementwiseName, GroupNorm
from maam.spec.rearrange import Rearrange


@composite
def ese(
    channels: Size,
    *,
    gate_layer: GateName = "hard_sigmoid",
) -> Scale:
    """Return an effective SE layer (arXiv 1911.06667): squeeze and excitation with one full matrix.

    y = x * gate(W avg(x) + b), where avg is the mean of each channel. Parameter names are those of timm.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "hard_sigmoid".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> from maam import spec
        >>> spec.ese(64).num_parameters
        4160
    """
    fc = Conv2d(in_channels=channels, out_channels=channels, kernel_size=1)
    return Scale(children={"pool": GlobalPool(), "fc": fc, "gate": Activation(function=gate_layer)})


@composite
def eca(
    channels: Size,
    kernel_size: OddSize | None = None,
    gamma: Positive = 2.0,
    beta: Real = 1.0,
    *,
    gate_layer: GateName = "sigmoid",
) -> Graph:
    """Return an ECA layer (efficient channel attention, arXiv 1910.03151).

    y = x * gate(Conv1d(avg(x))), where the convolution, without bias, runs over the channels. Parameter names are those
    of the authors' code and of timm.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        kernel_size: the kernel size of the convolution, odd. Default: int(|log2(channels) + beta| / gamma), or the next
            odd number, but at least 3.
        gamma: see `kernel_size`. Default: 2.0.
        beta: see `kernel_size`. Default: 1.0.
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> from maam import spec
        >>> spec.eca(64).num_parameters, spec.eca(512).num_parameters
        (3, 5)
    """
    if kernel_size is None:
        quotient = abs(math.log2(channels) + beta) / gamma
        if not quotient <= MAX_SIZE:
            raise ValueError(
                f"gamma, beta: |log2(channels) + beta| / gamma is {quotient:g}; expected a kernel size of at most "
                f"{MAX_SIZE}; increase gamma, or pass kernel_size"
            )
        size = int(quotient)
        kernel_size = max(size if size % 2 else size + 1, 3)
    conv = Conv1d(in_channels=1, out_channels=1, kernel_size=kernel_size, padding=kernel_size // 2, bias=False)
    children = {
        "pool": GlobalPool(),
        "sequence": Rearrange(pattern="c 1 1 -> 1 c"),
        "conv": conv,
        "gate": Activation(function=gate_layer),
        "map": Rearrange(pattern="1 c -> c 1 1"),
    }
    return Graph(children=children, formula="x * map(gate(conv(sequence(pool(x)))))", in_channels=channels)


@composite
def gc(
    channels: Size,
    rd_ratio: Ratio = 1 / 8,
    rd_channels: Size | None = None,
    *,
    fuse_add: Flag = False,
    fuse_scale: Flag = True,
    act_layer: ElementwiseName = "relu",
    gate_layer: GateName = "sigmoid",
) -> Graph:
    """Return a GC layer (global context, arXiv 1904.11492).

    y = x * gate(P(c)), or x + P(c) with `fuse_add`. The context c is the mean of x over the positions, weighted by
    softmax(Conv1x1(x)); P is a perceptron with layer normalization. Parameter names and defaults are those of timm.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron as a fraction of `channels`, above 0 and at most 1. The width is rounded
            down and at least 1. Default: 1 / 8.
        rd_channels: the width of the perceptron; replaces `rd_ratio`.
        fuse_add: whether to add P(c) to the map. Its last weight starts at 0. Default: False.
        fuse_scale: whether to multiply the map by gate(P(c)). Default: True.
        act_layer: the activation of the perceptron: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish",
            "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default:
            "relu".
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid, or neither `fuse_add` nor `fuse_scale` is set.

    Example:
        >>> from maam import spec
        >>> spec.gc(64).num_parameters
        1177
    """
    if not (fuse_add or fuse_scale):
        raise ValueError("fuse_add, fuse_scale: expected at least one of them to be True")
    width = reduced_width(channels, rd_ratio, rd_channels)
    children: dict[str, Node] = {
        "conv_attn": Conv2d(in_channels=channels, out_channels=1, kernel_size=1, init="kaiming_normal"),
        "softmax": Softmax(axis="spatial"),
        "context": GlobalPool(function="sum"),
    }
    formula = "c = context(x * softmax(conv_attn(x)))"
    scaled = "x * gate(mlp_scale(c))" if fuse_scale else "x"
    if fuse_scale:
        children |= {
            "mlp_scale": _normed_perceptron(channels, width, act_layer),
            "gate": Activation(function=gate_layer),
        }
    if fuse_add:
        children["mlp_add"] = _normed_perceptron(channels, width, act_layer, last="zeros")
    formula = f"{formula}; {scaled} + mlp_add(c)" if fuse_add else f"{formula}; {scaled}"
    return Graph(children=children, formula=formula)


@composite
def ge(
    channels: Size,
    rd_ratio: Ratio = 1 / 16,
    rd_channels: Size | None = None,
    *,
    extent: Literal[0, 2, 4, 8] = 0,
    extra_params: Flag = False,
    use_mlp: Flag = True,
    act_layer: ElementwiseName = "relu",
    gate_layer: GateName = "sigmoid",
) -> Graph:
    """Return a GE layer (gather and excite, arXiv 1810.12348).

    y = x * gate(resize(P(gather(x)))): means of neighborhoods, a perceptron of 1x1 convolutions, nearest resize to the
    size of x. Parameter names are those of timm.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron as a fraction of `channels`, above 0 and at most 1. The width is rounded
            down and at least 1. Default: 1 / 16.
        rd_channels: the width of the perceptron; replaces `rd_ratio`.
        extent: the size of the neighborhoods: 2, 4 or 8, or 0 for the whole map. Default: 0.
        extra_params: whether depthwise convolutions with stride 2 gather, in place of average pooling; `extent` must
            not be 0. Default: False.
        use_mlp: whether there is a perceptron. Default: True.
        act_layer: the activation of the perceptron: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish",
            "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default:
            "relu".
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid, or `extra_params` is set with `extent` 0.

    Example:
        >>> from maam import spec
        >>> spec.ge(64, extent=4).output_shape((64, 14, 14))
        (64, 14, 14)
    """
    if extra_params and extent == 0:
        raise ValueError("extra_params: the whole map cannot be gathered by convolutions; expected extent 2, 4 or 8")
    children: dict[str, Node] = {"gather": _gather(channels, extent, extra_params, act_layer)}
    if use_mlp:
        width = reduced_width(channels, rd_ratio, rd_channels)
        children["mlp"] = Sequential(children=perceptron(channels, width, act_layer))
    children["gate"] = Activation(function=gate_layer)
    gathered = "mlp(gather(x))" if use_mlp else "gather(x)"
    formula = f"x * gate(resize({gathered}, x))" if extent else f"x * gate({gathered})"
    return Graph(children=children, formula=formula, in_channels=channels)


@composite
def gct(
    channels: Size,
    epsilon: Positive = 1e-5,
    *,
    mode: Literal["l2", "l1"] = "l2",
    gate_layer: Literal["tanh", "sigmoid"] = "tanh",
) -> Graph:
    """Return a GCT layer (gated channel transformation, arXiv 1909.11519).

    y = x * (1 + tanh(gamma * e / |e| + beta)), where e = alpha * |x| is the scaled norm of each channel, and |e| the
    norm over the channels. A new layer changes nothing, because gamma and beta start at 0. Parameter names are those of
    the authors' code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        epsilon: the number that is added under roots and to denominators. Default: 1e-5.
        mode: the norm, "l2" or "l1". Default: "l2".
        gate_layer: "tanh", or "sigmoid". Default: "tanh".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> from maam import spec
        >>> spec.gct(64).num_parameters
        192
    """
    root = f"(total(x ** 2) + {epsilon}) ** 0.5"
    norms = {
        "l2": (root, f"(mean(e ** 2) + {epsilon}) ** -0.5"),
        "l1": ("total(abs(x))", f"1 / (mean(norm(e)) + {epsilon})"),
    }
    embedding, normalized = norms[mode]
    children: dict[str, Node] = {"total": GlobalPool(function="sum"), "mean": GlobalPool(axis="channels")}
    if mode == "l1":
        children |= {"abs": Activation(function="abs"), "norm": Activation(function="abs")}
    children["gate"] = Activation(function=gate_layer)
    arrays = {name: ((channels, 1, 1), value) for name, value in (("alpha", 1.0), ("gamma", 0.0), ("beta", 0.0))}
    formula = f"e = alpha * {embedding}; x * (1 + gate(e * gamma * {normalized} + beta))"
    return Graph(children=children, formula=formula, arrays=arrays, in_channels=channels)


@composite
def sk(
    channels: Size,
    rd_ratio: Ratio = 1 / 16,
    rd_channels: Size | None = None,
    *,
    kernel_sizes: OddSizes = (3, 5),
    keep_3x3: Flag = True,
    groups: Size = 1,
    split_input: Flag = False,
    act_layer: ElementwiseName = "relu",
) -> Graph:
    """Return an SK layer (selective kernel, arXiv 1903.06586): branches with different kernels.

    y = sum_i a_i * B_i(x), where B_i is a convolution, batch norm and activation, and a the softmax of a perceptron of
    the mean of sum_i B_i(x). Parameter names are those of timm.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron as a fraction of `channels`, above 0 and at most 1. The width is rounded
            down and at least 32. Default: 1 / 16.
        rd_channels: the width of the perceptron; replaces `rd_ratio`.
        kernel_sizes: the kernel size of each branch, odd, or one for both of two branches. Default: (3, 5).
        keep_3x3: whether larger kernels are 3x3 with dilation. Default: True.
        groups: the groups of the convolutions. Default: 1.
        split_input: whether each branch gets its share of the channels, as timm's networks have it. Default: False.
        act_layer: the activation of the branches and the perceptron: "relu", "relu6", "leaky_relu", "elu", "gelu",
            "silu", "hard_swish", "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class
            such as nn.ReLU. Default: "relu".

    Raises:
        SpecError: an argument is invalid, or `groups`, or the number of branches with `split_input`, does not divide
            `channels`.

    Example:
        >>> from maam import spec
        >>> spec.sk(64).output_shape((64, 14, 14))
        (64, 14, 14)
    """
    sizes = as_tuple(kernel_sizes) * 2 if len(as_tuple(kernel_sizes)) == 1 else as_tuple(kernel_sizes)
    count = len(sizes)
    inputs = channels // count if split_input else channels
    if split_input and channels % count:
        raise ValueError(f"split_input: {count} branches do not divide {channels} channels")
    if inputs % groups or channels % groups:
        raise ValueError(f"groups: {groups} groups do not divide {inputs} channels")
    paths: dict[str, Node] = {}
    for index, size in enumerate(sizes):
        chosen = f"x[{index * inputs}:{(index + 1) * inputs}]" if split_input else "x"
        paths[str(index)] = _path(inputs, channels, size, keep_3x3, groups, act_layer, chosen)
    width = max(int(channels * rd_ratio), 32) if rd_channels is None else rd_channels
    children = {
        "paths": Parallel(children=paths, merge="concat"),
        "attn": _path_attention(channels, count, width, act_layer),
    }
    parts = [f"p[{index * channels}:{(index + 1) * channels}]" for index in range(count)]
    weighted = " + ".join(part.replace("p", "w", 1) for part in parts)
    formula = f"p = paths(x); w = p * attn({' + '.join(parts)}); {weighted}"
    return Graph(children=children, formula=formula, in_channels=channels)


def _normed_perceptron(
    channels: int, width: int, act_layer: ElementwiseName, last: WeightInit = "fan_in_uniform"
) -> Sequential:
    """Return two 1x1 convolutions with layer normalization between them, for maps of one position."""
    children = perceptron(channels, width, act_layer)
    norm = GroupNorm(num_groups=1, num_channels=width, eps=1e-6)
    fc2 = Conv2d(in_channels=width, out_channels=channels, kernel_size=1, init=last)
    return Sequential(children={"fc1": children["fc1"], "norm": norm, "act": children["act"], "fc2": fc2})


def _gather(channels: int, extent: int, extra_params: bool, act_layer: ElementwiseName) -> Node:
    """Return the layer that summarizes neighborhoods of `extent`, or the whole map."""
    if extent == 0:
        return GlobalPool()
    if not extra_params:
        return AvgPool2d(kernel_size=2 * extent - 1, stride=extent, padding=extent - 1)
    children: dict[str, Node] = {}
    count = extent.bit_length() - 1
    for index in range(1, count + 1):
        children[f"conv{index}"] = Conv2d(
            in_channels=channels, out_channels=channels, kernel_size=3, stride=2, padding=1, groups=channels, bias=False
        )
        children[f"norm{index}"] = BatchNorm2d(num_features=channels)
        if index < count:
            children[f"act{index}"] = Activation(function=act_layer)
    return Sequential(children=children)


def _path(
    inputs: int, outputs: int, kernel_size: int, keep_3x3: bool, groups: int, act_layer: ElementwiseName, chosen: str
) -> Node:
    """Return a branch of SK: convolution, batch norm and activation of the channels `chosen` of x."""
    dilation = (kernel_size - 1) // 2 if keep_3x3 else 1
    kernel_size = min(kernel_size, 3) if keep_3x3 else kernel_size
    children: dict[str, Node] = {
        "conv": Conv2d(
            in_channels=inputs,
            out_channels=outputs,
            kernel_size=kernel_size,
            padding=dilation * (kernel_size - 1) // 2,
            dilation=dilation,
            groups=groups,
            bias=False,
        ),
        "bn": BatchNorm2d(num_features=outputs),
        "act": Activation(function=act_layer),
    }
    if chosen == "x":
        return Sequential(children=children)
    return Graph(children=children, formula=f"act(bn(conv({chosen})))")


def _path_attention(channels: int, count: int, width: int, act_layer: ElementwiseName) -> Sequential:
    """Return the weights of the channels of all branches, (channels, H, W) to (count * channels, 1, 1)."""
    return Sequential(
        children={
            "pool": GlobalPool(),
            "fc_reduce": Conv2d(in_channels=channels, out_channels=width, kernel_size=1, bias=False),
            "bn": BatchNorm2d(num_features=width),
            "act": Activation(function=act_layer),
            "fc_select": Conv2d(in_channels=width, out_channels=count * channels, kernel_size=1, bias=False),
            "split": Rearrange(pattern=f"(p={count} c) 1 1 -> p c 1"),
            "softmax": Activation(function="softmax"),
            "join": Rearrange(pattern="p c 1 -> (p c) 1 1"),
        }
    )
