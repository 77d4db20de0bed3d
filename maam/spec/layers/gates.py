"""Gates: layers that scale a map by attention computed from it, and keep its shape.

MAF, MAF_C and MAF_B follow the paper on accumulated features and the code that its authors published; SE (arXiv
1709.01507) and CBAM (arXiv 1807.06521) are controls.
"""

from __future__ import annotations

from maam.spec.composites import composite
from maam.spec.fields import Flag, Size
from maam.spec.layers.gate_parts import (
    GateName,
    PoolTypes,
    Ratio,
    dilated_branch,
    excitation,
    hidden_width,
    perceptron,
    spatial_gate,
)
from maam.spec.node import Node
from maam.spec.primitives import (
    Activation,
    ElementwiseName,
    GlobalPool,
    Parallel,
    Residual,
    Scale,
    Sequential,
)


@composite
def maf(
    channels: Size,
    rd_ratio: Ratio = 1 / 16,
    rd_channels: Size | None = None,
    pool_types: PoolTypes = ("avg", "std"),
    *,
    act_layer: ElementwiseName = "relu",
    gate_layer: GateName = "sigmoid",
) -> Scale:
    """MAF, the channel gate: x * sigmoid(W2 ReLU(W1 [avg(x), std(x)] + b1) + b2), (channels, H, W) to the same shape.

    Args:
        channels: channels of the map.
        rd_ratio: width of the perceptron as a share of `channels`, rounded down, at least 1.
        rd_channels: that width itself.
        pool_types: statistics of each channel over the map, any of "avg", "std" (unbiased) and "max", concatenated.
        act_layer: activation of the perceptron.
        gate_layer: what bounds the gate: "sigmoid", "hard_sigmoid" or "tanh".

    Raises:
        SpecError: an argument is invalid, or a pool type stands there twice.
    """
    gate = perceptron(channels, hidden_width(channels, rd_ratio, rd_channels), pool_types, act_layer)
    return Scale(children={**gate, "gate": Activation(function=gate_layer)})


@composite
def mafc(
    channels: Size,
    rd_ratio: Ratio = 1 / 16,
    rd_channels: Size | None = None,
    pool_types: PoolTypes = ("avg", "std"),
    *,
    spatial: Flag = True,
    act_layer: ElementwiseName = "relu",
    gate_layer: GateName = "sigmoid",
) -> Sequential:
    """MAF_C: MAF, the channel gate, then a spatial gate, as CBAM arranges them; (channels, H, W) to the same shape.

    The spatial gate is x * sigmoid(BN(Conv7x7([avg, std] over the channels))).

    Args:
        channels: channels of the map.
        rd_ratio: width of the perceptron as a share of `channels`, rounded down, at least 1.
        rd_channels: that width itself.
        pool_types: statistics, any of "avg", "std" (unbiased) and "max": of each channel over the map in the channel
            gate, of each position over the channels in the spatial gate.
        spatial: False leaves the spatial gate out.
        act_layer: activation of the perceptron.
        gate_layer: what bounds each of the two gates: "sigmoid", "hard_sigmoid" or "tanh".

    Raises:
        SpecError: an argument is invalid, or a pool type stands there twice.
    """
    channel = maf(channels, rd_ratio, rd_channels, pool_types, act_layer=act_layer, gate_layer=gate_layer)
    children: dict[str, Node] = {"ChannelGate": channel}
    if spatial:
        children["SpatialGate"] = spatial_gate(pool_types, gate_layer)
    return Sequential(children=children)


@composite
def mafb(
    channels: Size,
    rd_ratio: Ratio = 1 / 16,
    rd_channels: Size | None = None,
    pool_types: PoolTypes = ("avg", "std"),
    *,
    act_layer: ElementwiseName = "relu",
    gate_layer: GateName = "sigmoid",
) -> Residual:
    """MAF_B, our reading (no code was published): x * (1 + sigmoid(C(x) + S(x))), as BAM arranges it.

    C is the perceptron of MAF, S the dilated branch of BAM (arXiv 1807.06514; reduction 16, dilation 4).
    (channels, H, W) to the same shape.

    Args:
        channels: channels of the map.
        rd_ratio: width of the perceptron as a share of `channels`, rounded down, at least 1.
        rd_channels: that width itself.
        pool_types: statistics of each channel over the map, any of "avg", "std" (unbiased) and "max", concatenated.
        act_layer: activation of the perceptron and of the dilated branch.
        gate_layer: what bounds the gate: "sigmoid", "hard_sigmoid" or "tanh".

    Raises:
        SpecError: an argument is invalid, or a pool type stands there twice.
    """
    channel = perceptron(channels, hidden_width(channels, rd_ratio, rd_channels), pool_types, act_layer)
    both = {"ChannelGate": Sequential(children=channel), "SpatialGate": dilated_branch(channels, act_layer)}
    gate = Scale(children={"logits": Parallel(children=both), "gate": Activation(function=gate_layer)})
    return Residual(children={"attention": gate})


@composite
def se(
    channels: Size,
    rd_ratio: Ratio = 1 / 16,
    rd_channels: Size | None = None,
    *,
    act_layer: ElementwiseName = "relu",
    gate_layer: GateName = "sigmoid",
) -> Scale:
    """Squeeze and excitation: x * sigmoid(W2 ReLU(W1 avg(x) + b1) + b2), (channels, H, W) to the same shape.

    Args:
        channels: channels of the map.
        rd_ratio: width of the perceptron as a share of `channels`, rounded down, at least 1.
        rd_channels: that width itself.
        act_layer: activation of the perceptron.
        gate_layer: what bounds the gate: "sigmoid", "hard_sigmoid" or "tanh".

    Raises:
        SpecError: an argument is invalid.
    """
    children = {
        "pool": GlobalPool(),
        **excitation(channels, hidden_width(channels, rd_ratio, rd_channels), act_layer),
        "gate": Activation(function=gate_layer),
    }
    return Scale(children=children)


@composite
def cbam(
    channels: Size,
    rd_ratio: Ratio = 1 / 16,
    rd_channels: Size | None = None,
    *,
    spatial: Flag = True,
    act_layer: ElementwiseName = "relu",
    gate_layer: GateName = "sigmoid",
) -> Sequential:
    """CBAM: one perceptron on the average and on the maximum, summed, sigmoid; then the spatial gate of [max, avg].

    (channels, H, W) to the same shape. The perceptron is two 1x1 convolutions over a map of the two statistics, so that
    both go through the same weights.

    Args:
        channels: channels of the map.
        rd_ratio: width of the perceptron as a share of `channels`, rounded down, at least 1.
        rd_channels: that width itself.
        spatial: False leaves the spatial gate out.
        act_layer: activation of the perceptron.
        gate_layer: what bounds each of the two gates: "sigmoid", "hard_sigmoid" or "tanh".

    Raises:
        SpecError: an argument is invalid.
    """
    pools = Parallel(children={"avg": GlobalPool(), "max": GlobalPool(function="max")}, merge="stack")
    channel = Scale(
        children={
            "pools": pools,
            **excitation(channels, hidden_width(channels, rd_ratio, rd_channels), act_layer),
            "sum": GlobalPool(function="sum"),
            "gate": Activation(function=gate_layer),
        }
    )
    children: dict[str, Node] = {"ChannelGate": channel}
    if spatial:
        children["SpatialGate"] = spatial_gate(("max", "avg"), gate_layer)
    return Sequential(children=children)
