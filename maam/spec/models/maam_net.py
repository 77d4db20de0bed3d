"""Networks of MAAM layers in stages: `maam_net_s`, `_m` and `_l`, and their controls with one branch."""

from __future__ import annotations

from typing import Any

from maam.errors import SpecError
from maam.spec.composites import OddSizes, Sizes, as_tuple, composite
from maam.spec.containers import Model, Parallel, Sequential
from maam.spec.fields import Flag, Positive, Probability, Size
from maam.spec.layers.maam import Fusion, NumAgents, agent_block, maam
from maam.spec.models.attention import GATES, Attention
from maam.spec.node import Node, map_layers
from maam.spec.pooling import GlobalPool
from maam.spec.presets import register_variant
from maam.spec.primitives import Activation, Conv2d, Dropout, ElementwiseName, Flatten, Identity, Linear


@composite
def maam_net(
    num_classes: Size = 10,
    in_channels: Size = 3,
    *,
    image_size: Size = 32,
    stem_stride: Size = 1,
    stem_channels: Size = 24,
    channels: Sizes = (60, 240, 300),
    num_agents: NumAgents = 3,
    kernel_sizes: OddSizes = 3,
    scales: Sizes = 1,
    fusion: Fusion = "softmax",
    reduce: Flag = False,
    act_layer: ElementwiseName = "gelu",
    attention: Attention | None = None,
    logits_factor: Positive | None = None,
    dropout: Probability = 0.0,
    name: str = "maam_net",
) -> Model:
    """Return an image classifier: a convolution, MAAM layers in stages, global max pooling and a linear layer.

    Each stage is a MAAM layer that halves height and width between its two convolutions. The branches together have
    as many hidden channels as the stage has outputs, so that any number of branches has the same multiply-accumulates.
    With one branch, which is the control, a stage is an `agent_block`: convolution, max pooling, batch norm,
    activation, convolution, batch norm, activation, as in the networks of Keller Jordan (arXiv 2404.00498). The papers
    on MAAM do not describe these networks.

    Shape:
        (N, in_channels, H, W) to (N, num_classes), for any H and W that are large enough for the pooling.

    Args:
        num_classes: the number of classes, the length of the logits. Default: 10.
        in_channels: the number of channels of the image. Default: 3.
        image_size: height and width in `input_shape` of the spec, in pixels. Default: 32.
        stem_stride: the stride of the first convolution. Its kernel has the same size, or 2 with stride 1. 1 suits
            images of 32x32, 2 of 64x64, 4 of 128x128 and more. Default: 1.
        stem_channels: the number of channels of the first convolution. Default: 24.
        channels: the number of channels of each stage, at least `num_agents`. Default: (60, 240, 300).
        num_agents: the number of parallel branches of each stage, 1 to 256. 1: a stage is an `agent_block`, and
            `fusion` has no effect. Default: 3.
        kernel_sizes: the kernel size of the convolutions in the stages, odd; one value for all branches or a list with
            one for each. Default: 3.
        scales: the window of the average pooling in front of a branch; one value or one for each branch. Default: 1.
        fusion: how the branches are weighted. "softmax": softmax of one learnable scalar per branch. "mean": equal
            weights. "dynamic": softmax of a linear layer on the globally average-pooled input. Default: "softmax".
        reduce: whether a 1x1 convolution, normalization and activation follow the sum of the branches. No effect
            with one branch. Default: False.
        act_layer: the activation: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish", "sigmoid",
            "hard_sigmoid", "tanh" or "identity". Default: "gelu".
        attention: a layer after each stage, by the name of its function in `maam.spec`, such as "eca". The parameters
            keep their names; those of the new layers are `attention1.*` and so on. Default: None, no layer.
        logits_factor: a constant factor on the logits, which makes the first steps of training smaller. Default: 1 / 9
            with one branch and 1 / 4 with several, whose mean has a smaller variance.
        dropout: the probability of dropout in front of the linear layer, 0 to 1 (exclusive); 0 adds no layer. Default:
            0.0.
        name: the name of the model, for display. Default: "maam_net".

    Raises:
        SpecError: an argument is invalid, or the image is too small for the layers.

    Example:
        >>> from maam import spec
        >>> model = spec.maam_net()
        >>> model.stages()["stage3"], model.num_parameters, model.macs((3, 32, 32))
        ((300, 3, 3), 2159481, 113627928)
    """
    branch: dict[str, Any] = {"pool": (2, 1), "pool_before_norm": True, "act_layer": act_layer}
    several: dict[str, Any] = {"num_agents": num_agents, "fusion": fusion, "reduce": reduce}
    several |= {"kernel_sizes": kernel_sizes, "scales": scales}
    for option, values in (("kernel_sizes", kernel_sizes), ("scales", scales)):
        if num_agents == 1 and len(as_tuple(values)) > 1:
            raise SpecError(f"{option}: expected one value for one branch, got {as_tuple(values)}")
    kernel = max(stem_stride, 2)
    stem = Conv2d(in_channels=in_channels, out_channels=stem_channels, kernel_size=kernel, stride=stem_stride)
    body: dict[str, Node] = {
        "stem": Sequential(children={"conv": stem, "act": Activation(function=act_layer)}),
    }
    width = stem_channels
    for index, wider in enumerate(as_tuple(channels)):
        if wider < num_agents:
            raise SpecError(f"channels: expected at least {num_agents}, one for each branch, got {wider}")
        if num_agents == 1:
            first: dict[str, Any] = {"kernel_size": as_tuple(kernel_sizes)[0], "scale": as_tuple(scales)[0]}
            stage = agent_block(width, wider, hidden_channels=wider, **first, **branch)
        else:
            stage = maam(width, wider, hidden_channels=wider // num_agents, **several, **branch)
        body[f"stage{index + 1}"] = map_layers(stage, _with_default_init)
        if attention is not None:
            body[f"attention{index + 1}"] = GATES[attention](wider)
        width = wider
    factor = logits_factor or (1 / 9 if num_agents == 1 else 1 / 4)
    body["classifier"] = _classifier(width, num_classes, factor, dropout)
    return Model(name=name, input_shape=(in_channels, image_size, image_size), children=body)


def _with_default_init(layer: Node) -> Node:
    """Return a convolution that starts smaller than He's, as those do that start as the identity, or another layer."""
    return layer.replace(init="fan_in_uniform") if isinstance(layer, Conv2d) else layer


def _classifier(in_features: int, num_classes: int, factor: float, dropout: float) -> Sequential:
    children: dict[str, Node] = {"pool": GlobalPool(function="max"), "flatten": Flatten()}
    if dropout:
        children["dropout"] = Dropout(p=dropout)
    if factor != 1:  # in front of the linear layer, which has no bias, so that the head is the last layer
        children["factor"] = Parallel(children={"features": Identity()}, merge="weighted", weights=(factor,))
    children["fc"] = Linear(in_features=in_features, out_features=num_classes, bias=False)
    return Sequential(children=children)


_SETTINGS: dict[str, dict[str, Any]] = {
    "maam_net_s": {"channels": (30, 120, 180)},
    "maam_net_m": {"channels": (60, 240, 300)},
    "maam_net_l": {"channels": (120, 360, 480)},
}
"""Widths that 1, 2, 3 and 5 divide, so that controls with other numbers of branches have the same costs."""


for _name, _settings in _SETTINGS.items():
    register_variant(maam_net, _name, _settings)
    register_variant(maam_net, f"{_name}_control", {**_settings, "num_agents": 1})
