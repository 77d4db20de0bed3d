"""Attention to channels and positions: BAM, scSE, coordinate attention, SimAM, triplet attention, LKA and VAN.

Each layer keeps the shape of a feature map.
"""

from __future__ import annotations

from typing import Literal

from maam.spec.composites import composite
from maam.spec.containers import Parallel, Residual, Scale, Sequential
from maam.spec.fields import Flag, OddSize, Positive, Size
from maam.spec.graph import Graph
from maam.spec.layers.gates import SPATIAL_MOMENTUM, GateName, Ratio, reduced_width
from maam.spec.node import Node
from maam.spec.pooling import GlobalPool
from maam.spec.primitives import Activation, BatchNorm2d, Conv2d, ElementwiseName, Flatten, Linear, Unflatten
from maam.spec.rearrange import Rearrange


@composite
def bam(
    channels: Size,
    rd_ratio: Ratio = 1 / 16,
    rd_channels: Size | None = None,
    *,
    dilation: Size = 4,
    act_layer: ElementwiseName = "relu",
    gate_layer: GateName = "sigmoid",
) -> Graph:
    """Return a BAM layer (bottleneck attention module, arXiv 1807.06514), as the authors' code computes it.

    y = x * (1 + gate(C(x) * S(x))), where C is a perceptron of the mean of each channel, and S a chain of dilated
    convolutions. The paper adds C and S; the code multiplies them. Parameter names are those of the code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron and of the convolutions as a fraction of `channels`, above 0 and at most
            1. The width is rounded down and at least 1. Default: 1 / 16.
        rd_channels: the width of the perceptron and of the convolutions; replaces `rd_ratio`.
        dilation: the dilation of the two 3x3 convolutions. Default: 4.
        act_layer: the activation of the perceptron and of the convolutions: "relu", "relu6", "leaky_relu", "elu",
            "gelu", "silu", "hard_swish", "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a
            class such as nn.ReLU. Default: "relu".
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> from maam import spec
        >>> spec.bam(64).output_shape((64, 32, 32))
        (64, 32, 32)
    """
    width = reduced_width(channels, rd_ratio, rd_channels)
    children = {
        "channel_att": Sequential(children={"gate_c": _bam_channels(channels, width, act_layer)}),
        "spatial_att": Sequential(children={"gate_s": _bam_positions(channels, width, dilation, act_layer)}),
        "gate": Activation(function=gate_layer),
    }
    return Graph(children=children, formula="x * (1 + gate(channel_att(x) * spatial_att(x)))")


@composite
def scse(
    channels: Size,
    rd_ratio: Ratio = 1 / 2,
    rd_channels: Size | None = None,
    *,
    merge: Literal["max", "add"] = "max",
    act_layer: ElementwiseName = "relu",
    gate_layer: GateName = "sigmoid",
) -> Graph:
    """Return an scSE layer (concurrent spatial and channel squeeze and excitation, arXiv 1803.02579).

    y = max(x * gate(P(avg(x))), x * gate(Conv1x1(x))), or their sum. The authors' code takes the maximum. Parameter
    names are those of the code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the perceptron as a fraction of `channels`, above 0 and at most 1. The width is rounded
            down and at least 1. Default: 1 / 2.
        rd_channels: the width of the perceptron; replaces `rd_ratio`.
        merge: how to combine both maps: "max" or "add". Default: "max".
        act_layer: the activation of the perceptron: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish",
            "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as nn.ReLU. Default:
            "relu".
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> from maam import spec
        >>> spec.scse(64).num_parameters
        4257
    """
    width = reduced_width(channels, rd_ratio, rd_channels)
    channel: dict[str, Node] = {
        "pool": GlobalPool(),
        "flatten": Flatten(),
        "fc1": Linear(in_features=channels, out_features=width),
        "act": Activation(function=act_layer),
        "fc2": Linear(in_features=width, out_features=channels),
        "unflatten": Unflatten(),
        "gate": Activation(function=gate_layer),
    }
    conv = Conv2d(in_channels=channels, out_channels=1, kernel_size=1)
    children: dict[str, Node] = {
        "cSE": Scale(children=channel),
        "sSE": Scale(children={"conv": conv, "gate": Activation(function=gate_layer)}),
    }
    if merge == "add":
        return Graph(children=children, formula="cSE(x) + sSE(x)")
    children["relu"] = Activation(function="relu")
    return Graph(children=children, formula="c = cSE(x); c + relu(sSE(x) - c)")  # the maximum


@composite
def coord(
    channels: Size,
    rd_ratio: Ratio = 1 / 32,
    rd_channels: Size | None = None,
    *,
    bias: Flag = True,
    act_layer: ElementwiseName = "hard_swish",
    gate_layer: GateName = "sigmoid",
) -> Graph:
    """Return a coordinate attention layer (arXiv 2103.02907).

    y = x * gate(Conv_h(h)) * gate(Conv_w(w)), where h and w are the means of the rows and of the columns, after a
    shared 1x1 convolution, batch norm and activation. Parameter names and defaults are those of the authors' code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        rd_ratio: the width of the shared convolution as a fraction of `channels`, above 0 and at most 1. The width is
            rounded down and at least 8. Default: 1 / 32.
        rd_channels: the width of the shared convolution; replaces `rd_ratio`.
        bias: whether the convolutions have a bias. Default: True.
        act_layer: the activation of the shared convolution: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu",
            "hard_swish", "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as
            nn.ReLU. Default: "hard_swish".
        gate_layer: the function that bounds the gates: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> from maam import spec
        >>> spec.coord(64).num_parameters
        1688
    """
    width = max(int(channels * rd_ratio), 8) if rd_channels is None else rd_channels
    children = {
        **strips(),
        "conv1": Conv2d(in_channels=channels, out_channels=width, kernel_size=1, bias=bias),
        "bn1": BatchNorm2d(num_features=width),
        "act": Activation(function=act_layer),
        "conv_h": Conv2d(in_channels=width, out_channels=channels, kernel_size=1, bias=bias),
        "conv_w": Conv2d(in_channels=width, out_channels=channels, kernel_size=1, bias=bias),
        "gate_h": Activation(function=gate_layer),
        "gate_w": Activation(function=gate_layer),
    }
    formula = (
        "h = pool_h(x); w = turn(pool_w(x)); s = act(bn1(conv1(stack(h, w))));"
        "x * gate_w(conv_w(back(last(s, w)))) * gate_h(conv_h(first(s, h)))"
    )
    return Graph(children=children, formula=formula, in_channels=channels)


@composite
def simam(
    channels: Size | None = None,
    e_lambda: Positive = 1e-4,
    *,
    gate_layer: GateName = "sigmoid",
) -> Graph:
    """Return a SimAM layer (ICML 2021), which has no parameters.

    y = x * gate(d / (4 (v + e_lambda)) + 1/2), where d is the squared distance of each value to the mean of its
    channel, and v the unbiased variance of the channel.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input; None for any. Default: None.
        e_lambda: the regularization of the variance. Default: 1e-4.
        gate_layer: the function that bounds the gate: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> from maam import spec
        >>> spec.simam().num_parameters
        0
    """
    children = {
        "mean": GlobalPool(),
        "variance": GlobalPool(function="var"),
        "gate": Activation(function=gate_layer),
    }
    formula = f"x * gate((x - mean(x)) ** 2 / (4 * (variance(x) + {e_lambda})) + 0.5)"
    return Graph(children=children, formula=formula, in_channels=channels)


@composite
def triplet(
    channels: Size | None = None,
    *,
    spatial: Flag = True,
    kernel_size: OddSize = 7,
    gate_layer: GateName = "sigmoid",
) -> Parallel:
    """Return a triplet attention layer (arXiv 2010.03045).

    The mean of two or three gates x * gate(BN(Conv([max(x), avg(x)]))). The first treats the rows as channels, the
    second the columns, the third the channels as they are. Parameter names are those of the authors' code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input; None for any. Default: None.
        spatial: whether there is the third gate. Default: True.
        kernel_size: the kernel size of the convolutions, odd. Default: 7.
        gate_layer: the function that bounds the gates: "sigmoid", "hard_sigmoid" or "tanh". Default: "sigmoid".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> from maam import spec
        >>> spec.triplet(64).num_parameters
        300
    """
    turns = {"ChannelGateH": "c h w -> h c w", "ChannelGateW": "c h w -> w h c"}
    children: dict[str, Node] = {
        name: _triplet_gate(channels, pattern, kernel_size, gate_layer) for name, pattern in turns.items()
    }
    if spatial:
        children["SpatialGate"] = _triplet_gate(channels, None, kernel_size, gate_layer)
    return Parallel(children=children, merge="weighted", weights=(1 / len(children),) * len(children))


@composite
def lka(
    channels: Size,
) -> Scale:
    """Return an LKA layer (large kernel attention, arXiv 2202.09741).

    y = x * Conv1x1(Conv7x7(Conv5x5(x))), with depthwise convolutions, of which the second has dilation 3: together they
    reach as far as a kernel of 21x21. Parameter names are those of the authors' code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> from maam import spec
        >>> spec.lka(64).num_parameters
        9024
    """
    conv0 = Conv2d(in_channels=channels, out_channels=channels, kernel_size=5, padding=2, groups=channels)
    children = {
        "conv0": conv0,
        "conv_spatial": conv0.replace(kernel_size=7, padding=9, dilation=3),
        "conv1": Conv2d(in_channels=channels, out_channels=channels, kernel_size=1),
    }
    return Scale(children=children)


@composite
def van(
    channels: Size,
    *,
    act_layer: ElementwiseName = "gelu",
) -> Residual:
    """Return the attention of VAN (visual attention network, arXiv 2202.09741), which is built around LKA.

    y = x + Conv1x1(LKA(act(Conv1x1(x)))). Parameter names are those of the authors' code.

    Shape:
        (N, channels, H, W) to the same shape.

    Args:
        channels: the number of channels of the input.
        act_layer: the activation of the first convolution: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu",
            "hard_swish", "sigmoid", "hard_sigmoid", "tanh" or "identity". Layer classes also accept a class such as
            nn.ReLU. Default: "gelu".

    Raises:
        SpecError: an argument is invalid.

    Example:
        >>> from maam import spec
        >>> spec.van(64).num_parameters
        17344
    """
    children = {
        "proj_1": Conv2d(in_channels=channels, out_channels=channels, kernel_size=1),
        "activation": Activation(function=act_layer),
        "spatial_gating_unit": lka(channels),
        "proj_2": Conv2d(in_channels=channels, out_channels=channels, kernel_size=1),
    }
    return Residual(children=children)


def _bam_channels(channels: int, width: int, act_layer: ElementwiseName) -> Sequential:
    """Return the channel branch of BAM: (channels, H, W) to logits (channels, 1, 1)."""
    return Sequential(
        children={
            "pool": GlobalPool(),
            "flatten": Flatten(),
            "gate_c_fc_0": Linear(in_features=channels, out_features=width),
            "unflatten": Unflatten(),
            "gate_c_bn_1": BatchNorm2d(num_features=width),
            "gate_c_relu_1": Activation(function=act_layer),
            "flatten_1": Flatten(),
            "gate_c_fc_final": Linear(in_features=width, out_features=channels),
            "unflatten_1": Unflatten(),
        }
    )


def _bam_positions(channels: int, width: int, dilation: int, act_layer: ElementwiseName) -> Sequential:
    """Return the spatial branch of BAM: (channels, H, W) to logits (1, H, W)."""
    children: dict[str, Node] = {}
    for name in ("reduce0", "di_0", "di_1"):
        inner = name != "reduce0"
        children |= {
            f"gate_s_conv_{name}": Conv2d(
                in_channels=width if inner else channels,
                out_channels=width,
                kernel_size=3 if inner else 1,
                padding=dilation if inner else 0,
                dilation=dilation if inner else 1,
            ),
            f"gate_s_bn_{name}": BatchNorm2d(num_features=width),
            f"gate_s_relu_{name}": Activation(function=act_layer),
        }
    children["gate_s_conv_final"] = Conv2d(in_channels=width, out_channels=1, kernel_size=1)
    return Sequential(children=children)


def strips() -> dict[str, Node]:
    """Return the means of the rows (C, H, 1) and of the columns (C, 1, W), and the transposition of height and width.

    A graph that has them calls `pool_h`, `pool_w`, `turn` and `back`.
    """
    return {
        "pool_h": GlobalPool(axis="width"),
        "pool_w": GlobalPool(axis="height"),
        "turn": Rearrange(pattern="c h w -> c w h"),
        "back": Rearrange(pattern="c h w -> c w h"),
    }


def _triplet_gate(channels: int | None, pattern: str | None, kernel_size: int, gate_layer: GateName) -> Graph:
    """Return a gate of triplet attention over the axes in the order of a pattern."""
    conv = Conv2d(in_channels=2, out_channels=1, kernel_size=kernel_size, padding=kernel_size // 2, bias=False)
    children: dict[str, Node] = {
        "max": GlobalPool(function="max", axis="channels"),
        "mean": GlobalPool(axis="channels"),
        "spatial": Sequential(children={"conv": conv, "bn": BatchNorm2d(num_features=1, momentum=SPATIAL_MOMENTUM)}),
        "gate": Activation(function=gate_layer),
    }
    formula = "x * gate(spatial(concat(max(x), mean(x))))"
    if pattern is not None:
        children |= {"turn": Rearrange(pattern=pattern), "back": Rearrange(pattern=pattern)}  # swaps are involutions
        formula = "t = turn(x); back(t * gate(spatial(concat(max(t), mean(t)))))"
    return Graph(children=children, formula=formula, in_channels=channels)
