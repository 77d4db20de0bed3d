"""A network of MAAM layers for large images; ours, the paper has none."""

from __future__ import annotations

from maam.spec.composites import Sizes, composite
from maam.spec.fields import Flag, Probability, Size
from maam.spec.layers.blocks import NormName
from maam.spec.layers.maam import Fusion, NumAgents
from maam.spec.layers.maam_stem import maam_stem
from maam.spec.node import Node
from maam.spec.presets import register_preset
from maam.spec.primitives import Dropout, ElementwiseName, Flatten, GlobalPool, Linear, Model, Sequential


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
    act_layer: ElementwiseName = "relu",
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
        num_agents: number of parallel branches.
        fusion: how the branches become one: "softmax" of one learnable scalar a branch, "mean", or "dynamic": softmax
            of a linear map of the globally average-pooled input.
        reduce: whether the 1x1 convolution, batch norm and activation of the reduce layer follow.
        depthwise: each convolution of a branch becomes a depthwise one and a 1x1.
        act_layer: activation by name.
        norm_layer: "batch_norm", or "identity": no normalisation, and convolutions with bias.
        dropout: probability of dropout in front of the linear layer; 0 leaves the layer out.

    Raises:
        SpecError: an argument is invalid, or the image is too small for the layers.
    """
    body = maam_stem(
        in_channels,
        channels,
        num_agents=num_agents,
        fusion=fusion,
        reduce=reduce,
        depthwise=depthwise,
        act_layer=act_layer,
        norm_layer=norm_layer,
    )
    classifier: dict[str, Node] = {"pool": GlobalPool(), "flatten": Flatten()}
    if dropout:
        classifier["dropout"] = Dropout(p=dropout)
    classifier["fc"] = Linear(in_features=channels[-1], out_features=num_classes)
    children = {**body.children, "classifier": Sequential(children=classifier)}
    return Model(name="maam_imagenet", input_shape=(in_channels, image_size, image_size), children=children)
