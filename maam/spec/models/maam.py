"""MAAM as an image classifier (arXiv 2504.13574, sections 3.2 and 4.4), and its ablations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from maam.errors import PresetError
from maam.spec.composites import OddSizes, Sizes, as_tuple, composite, one_each
from maam.spec.containers import Model, Sequential
from maam.spec.fields import Flag, Probability, Size
from maam.spec.layers.maam import NUM_CONVS, Fusion, NormName, NumAgents, agent_block, maam, maam_stem, reduce_layer
from maam.spec.node import Node
from maam.spec.presets import preset_signature, register_preset
from maam.spec.primitives import Activation, Dropout, ElementwiseName, Flatten, GlobalPool, Linear, MaxPool2d

Ablation = Literal["none", "t_cnn", "without_agent_attention", "without_fusion", "without_reduce"]
Body = dict[str, Node]
"""Named layers from the image (in_channels, H, W) to the feature map (channels, H', W')."""


def _whole(in_channels: int, channels: int, **layer: Any) -> Body:
    return dict(maam(in_channels, channels, **layer).children)


def _t_cnn(
    in_channels: int,
    channels: int,
    *,
    num_agents: int,
    kernel_sizes: tuple[int, ...],
    scales: tuple[int, ...],
    fusion: str,
    reduce: bool,
    **branch: Any,
) -> Body:
    """The first branch alone."""
    kernel_size = one_each("kernel_sizes", kernel_sizes, num_agents, "agents")[0]
    scale = one_each("scales", scales, num_agents, "agents")[0]
    return {"agent": agent_block(in_channels, channels, kernel_size=kernel_size, scale=scale, **branch)}


def _without_agent_attention(
    in_channels: int,
    channels: int,
    *,
    pool: tuple[int, ...],
    act_layer: ElementwiseName,
    norm_layer: NormName,
    **_: Any,
) -> Body:
    """The image max-pooled to the size of F, then the reduce layer."""
    pools = pool if len(pool) == 1 else one_each("pool", pool, NUM_CONVS, "convolutions")
    shrink = MaxPool2d(kernel_size=math.prod(pools))
    return {
        "pool": shrink,
        "reduce": reduce_layer(in_channels, channels, act_layer=act_layer, norm_layer=norm_layer),
    }


def _without_fusion(in_channels: int, channels: int, **layer: Any) -> Body:
    return _whole(in_channels, channels, **{**layer, "fusion": "mean"})


def _without_reduce(in_channels: int, channels: int, **layer: Any) -> Body:
    return _whole(in_channels, channels, **{**layer, "reduce": False})


class Variant(NamedTuple):
    """How to make a body of `maam`'s arguments, and those of them that it does not heed."""

    make: Callable[..., Body]
    unheeded: tuple[str, ...] = ()


VARIANTS: dict[Ablation, Variant] = {
    "none": Variant(_whole),
    "t_cnn": Variant(_t_cnn, ("num_agents", "fusion", "reduce")),
    "without_agent_attention": Variant(
        _without_agent_attention,
        ("hidden_channels", "num_agents", "kernel_sizes", "scales", "fusion", "reduce", "depthwise"),
    ),
    "without_fusion": Variant(_without_fusion, ("fusion",)),
    "without_reduce": Variant(_without_reduce, ("reduce",)),
}


@composite
def maam_classifier(
    num_classes: Size = 10,
    in_channels: Size = 3,
    *,
    image_size: Size = 32,
    channels: Size = 128,
    hidden_channels: Size | None = None,
    num_agents: NumAgents = 3,
    kernel_sizes: OddSizes = 3,
    scales: Sizes = 1,
    pool: Sizes = (1, 2),
    fusion: Fusion = "softmax",
    reduce: Flag = True,
    depthwise: Flag = False,
    act_layer: ElementwiseName = "relu",
    norm_layer: NormName = "batch_norm",
    hidden_features: Size = 256,
    dropout: Probability = 0.0,
    ablation: Ablation = "none",
    name: str = "maam_classifier",
) -> Model:
    """MAAM, flatten, and a classifier of two linear layers: equations 1 to 8 of the paper.

    (in_channels, image_size, image_size) to the logits (num_classes,).

    Args:
        num_classes: length of the logits.
        in_channels: channels of the image.
        image_size: height and width of the image.
        channels: channels of the feature map F.
        hidden_channels: channels between the two convolutions of a branch; max(channels // 2, 1) by default.
        num_agents: number of parallel branches.
        kernel_sizes: odd kernel size of all branches, or one for each.
        scales: average pooling in front of all branches, or one for each.
        pool: max pooling after the last convolution of a branch, or one value for each of the two.
        fusion: "softmax" of one learnable scalar a branch, "mean", or "dynamic": softmax of a map of the pooled image.
        reduce: whether the reduce layer of equation 3 follows.
        depthwise: depthwise separable convolutions.
        act_layer: activation by name, also in the classifier.
        norm_layer: "batch_norm", or "identity": no normalisation, and convolutions with bias.
        hidden_features: width d of the classifier.
        dropout: probability of dropout in front of the last linear layer; 0 leaves the layer out.
        ablation: "none", or what Table 2 of the paper takes away: "t_cnn" (one branch, no fusion, no reduce
            layer), "without_agent_attention" (the image max-pooled to the size of F, then the reduce layer),
            "without_fusion" (the mean of the branches), "without_reduce". Arguments of what is gone have no effect.
        name: a name for people to read.

    Raises:
        SpecError: an argument is invalid or contradicts another, or the image is too small for the pooling.
    """
    layer: dict[str, Any] = {"hidden_channels": hidden_channels, "num_agents": num_agents, "kernel_sizes": kernel_sizes}
    layer |= {"scales": scales, "pool": pool, "fusion": fusion, "reduce": reduce, "depthwise": depthwise}
    layer |= {"act_layer": act_layer, "norm_layer": norm_layer}
    body = VARIANTS[ablation].make(in_channels, channels, **layer)
    image_shape = (in_channels, image_size, image_size)
    flat = math.prod(Sequential(children=body).output_shape(image_shape))
    body["classifier"] = _classifier(flat, hidden_features, num_classes, act_layer, dropout)
    return Model(name=name, input_shape=image_shape, children=body)


def _classifier(
    in_features: int, hidden_features: int, num_classes: int, act_layer: ElementwiseName, dropout: float
) -> Sequential:
    children: dict[str, Node] = {
        "flatten": Flatten(),
        "fc1": Linear(in_features=in_features, out_features=hidden_features, init="kaiming_uniform"),
        "act": Activation(function=act_layer),
    }
    if dropout:
        children["dropout"] = Dropout(p=dropout)
    children["fc2"] = Linear(in_features=hidden_features, out_features=num_classes)
    return Sequential(children=children)


_SETTINGS: dict[str, dict[str, Any]] = {
    "maam_cifar10": {},
    "maam_cifar10_2m3": {"pool": (2, 2)},
    "maam_digits": {
        "in_channels": 1,
        "image_size": 8,
        "channels": 32,
        "hidden_channels": 16,
        "hidden_features": 64,
    },
}
_FIXED = ("name", "ablation")


def _register(name: str) -> None:
    def build(**overrides: Any) -> Model:
        return maam_classifier(**{**_SETTINGS[name], "name": name, **overrides})

    build.__signature__ = preset_signature(maam_classifier, _SETTINGS[name], _FIXED)  # type: ignore[attr-defined]
    register_preset(build, name)


def _register_ablation(name: Ablation, base: str = "maam_cifar10_2m3") -> None:
    def build(base: str = base, **overrides: Any) -> Model:
        if not isinstance(base, str) or base not in _SETTINGS:
            raise PresetError(f"base: expected one of {', '.join(_SETTINGS)}, got {base!r}")
        return maam_classifier(**{**_SETTINGS[base], "name": name, "ablation": name, **overrides})

    left_out = (*_FIXED, *VARIANTS[name].unheeded)
    options = preset_signature(maam_classifier, _SETTINGS[base], left_out, base=base)
    build.__signature__ = options  # type: ignore[attr-defined]
    register_preset(build, name)


for _name in _SETTINGS:
    _register(_name)
for _ablation in VARIANTS:
    if _ablation != "none":
        _register_ablation(_ablation)


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
    classifier["fc"] = Linear(in_features=as_tuple(channels)[-1], out_features=num_classes)
    children = {**body.children, "classifier": Sequential(children=classifier)}
    return Model(name="maam_imagenet", input_shape=(in_channels, image_size, image_size), children=children)
