"""A network of MAAM layers for large images; ours, the paper has none."""

from __future__ import annotations

from typing import Any

from maam.spec.composites import Sizes, composite
from maam.spec.fields import Flag, Probability, Size
from maam.spec.layers.blocks import NormName, conv_norm_act
from maam.spec.layers.maam import Fusion, NumAgents, maam
from maam.spec.node import Node
from maam.spec.presets import register_preset
from maam.spec.primitives import ActivationName, Conv2d, Dropout, Flatten, GlobalPool, Linear, Model, Sequential


@register_preset
@composite
def maam_imagenet(
    num_classes: Size = 1000,
    in_channels: Size = 3,
    *,
    image_size: Size = 224,
    channels: Sizes = (64, 128, 256, 512),
    num_agents: NumAgents = 3,
    fusion: Fusion = "softmax",
    reduce: Flag = True,
    depthwise: Flag = True,
    act_layer: ActivationName = "relu",
    norm_layer: NormName = "batch_norm",
    dropout: Probability = 0.0,
) -> Model:
    """A 3x3 convolution of stride 2, MAAM layers that halve the map and double the width, global average, linear.

    (in_channels, H, W) to the logits (num_classes,); it takes images of other sizes too.

    Args:
        num_classes: length of the logits.
        in_channels: channels of the image.
        image_size: height and width that the spec notes.
        channels: width of each MAAM layer; the first convolution has half of the first.
        num_agents: as in `maam`, like all arguments down to `norm_layer`.
        fusion: how the branches become one.
        reduce: whether the reduce layer follows.
        depthwise: depthwise separable convolutions.
        act_layer: activation by name.
        norm_layer: "batch_norm" or "identity".
        dropout: probability of dropout in front of the linear layer; 0 leaves the layer out.
    """
    width = max(channels[0] // 2, 1)
    bias = norm_layer != "batch_norm"
    conv = Conv2d(
        in_channels=in_channels,
        out_channels=width,
        kernel_size=3,
        stride=2,
        padding=1,
        bias=bias,
        init="kaiming_normal",
    )
    layer: dict[str, Any] = {"act_layer": act_layer, "norm_layer": norm_layer}
    body: dict[str, Node] = {"stem": Sequential(children=conv_norm_act(conv, width, **layer))}
    layer |= {"num_agents": num_agents, "fusion": fusion, "reduce": reduce, "depthwise": depthwise}
    for index, out_channels in enumerate(channels):
        body[f"stage{index + 1}"] = maam(width, out_channels, pool=(1, 2), **layer)
        width = out_channels
    classifier: dict[str, Node] = {"pool": GlobalPool(), "flatten": Flatten()}
    if dropout:
        classifier["dropout"] = Dropout(p=dropout)
    classifier["fc"] = Linear(in_features=width, out_features=num_classes)
    body["classifier"] = Sequential(children=classifier)
    return Model(name="maam_imagenet", input_shape=(in_channels, image_size, image_size), children=body)
