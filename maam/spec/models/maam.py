"""MAAM image classifiers: the network of the paper (arXiv 2504.13574, sections 3.2 and 4.4), and one for ImageNet."""

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
from maam.spec.pooling import GlobalPool, MaxPool2d
from maam.spec.presets import preset_signature, register_preset, register_variant
from maam.spec.primitives import Activation, Dropout, ElementwiseName, Flatten, Linear

Ablation = Literal["none", "t_cnn", "without_agent_attention", "without_fusion", "without_reduce"]
Body = dict[str, Node]
"""The layers by name from the image (in_channels, H, W) to the feature map F (channels, H', W')."""


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
    """Return an image classifier: a MAAM layer, flatten and two linear layers (equations 1 to 8 of the MAAM paper).

    Shape:
        (N, in_channels, image_size, image_size) to (N, num_classes).

    Args:
        num_classes: the number of classes, the length of the logits. Default: 10.
        in_channels: the number of channels of the image. Default: 3.
        image_size: height and width of the image in pixels. Default: 32.
        channels: the number of channels of the feature map F, the output of MAAM. Default: 128.
        hidden_channels: the number of channels between the two convolutions of a branch. Default:
            max(channels // 2, 1).
        num_agents: the number of parallel branches, 1 to 256. Default: 3.
        kernel_sizes: the kernel size of the convolutions, odd; one value for all branches or a list with one for each.
            Default: 3.
        scales: the window of the average pooling in front of a branch; one value or one for each branch. Default: 1.
        pool: the window of max pooling after the last convolution of a branch, or a list with one value for each of the
            two convolutions. Default: (1, 2).
        fusion: how the branches are weighted. "softmax": softmax of one learnable scalar per branch. "mean": equal
            weights. "dynamic": softmax of a linear layer on the globally average-pooled image. Default: "softmax".
        reduce: whether a 1x1 convolution, normalization and activation follow the sum (equation 3). Default: True.
        depthwise: whether to replace each convolution of a branch with a depthwise and a 1x1 convolution. Default:
            False.
        act_layer: the activation: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish", "sigmoid",
            "hard_sigmoid", "tanh" or "identity". Default: "relu".
        norm_layer: "batch_norm", or "identity" for no normalization and convolutions with bias. Default: "batch_norm".
        hidden_features: the number of hidden units of the classifier, d in the paper. Default: 256.
        dropout: the probability of dropout in front of the last linear layer, 0 to 1 (exclusive); 0 adds no layer.
            Default: 0.0.
        ablation: "none", or a variant of Table 2: "t_cnn" (one branch, no fusion, no reduce layer),
            "without_agent_attention" (the image max-pooled to the size of F, then the reduce layer), "without_fusion"
            (the mean of the branches) or "without_reduce". Arguments that concern the removed parts have no effect.
            Default: "none".
        name: the name of the model, for display. Default: "maam_classifier".

    Raises:
        SpecError: an argument is invalid or contradicts another one, or the image is too small for the pooling.

    Example:
        >>> from maam import spec
        >>> model = spec.maam_classifier(num_classes=10, pool=(2, 2), dropout=0.5)
        >>> model.stages()
        {'agents': (128, 8, 8), 'reduce': (128, 8, 8), 'classifier': (10,)}
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
    """Return the first branch only."""
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
    """Return max pooling of the image to the size of F, and the reduce layer."""
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
    """An ablation: the function that returns its layers, and the arguments that have no effect on them."""

    make: Callable[..., Body]
    ignored: tuple[str, ...] = ()


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
    """Return an image classifier: a `maam_stem`, global average pooling and a linear layer.

    The paper mentions ImageNet but does not describe a network for it; this architecture is our choice.

    Shape:
        (N, in_channels, H, W) to (N, num_classes), for any H and W that are large enough for the pooling.

    Args:
        num_classes: the number of classes, the length of the logits. Default: 1000.
        in_channels: the number of channels of the image. Default: 3.
        image_size: height and width in `input_shape` of the spec, in pixels. Default: 224.
        channels: the number of channels of each MAAM layer. The first convolution has half of the first value. Default:
            (64, 128, 256, 512).
        num_agents: the number of parallel branches of each MAAM layer, 1 to 256. Default: 3.
        fusion: how the branches are weighted. "softmax": softmax of one learnable scalar per branch. "mean": equal
            weights. "dynamic": softmax of a linear layer on the globally average-pooled input. Default: "softmax".
        reduce: whether a 1x1 convolution, normalization and activation follow the sum of the branches. Default: True.
        depthwise: whether to replace each convolution of a branch with a depthwise and a 1x1 convolution. Default:
            True.
        act_layer: the activation: "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "hard_swish", "sigmoid",
            "hard_sigmoid", "tanh" or "identity". Default: "relu".
        norm_layer: "batch_norm", or "identity" for no normalization and convolutions with bias. Default: "batch_norm".
        dropout: the probability of dropout in front of the linear layer, 0 to 1 (exclusive); 0 adds no layer. Default:
            0.0.

    Raises:
        SpecError: an argument is invalid, or the image is too small for the layers.

    Example:
        >>> from maam import spec
        >>> model = spec.maam_imagenet(num_classes=100, channels=(32, 64, 128))
        >>> model.until("stage3").output_shape((3, 224, 224))
        (128, 14, 14)
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


def _register_ablation(name: Ablation, base: str = "maam_cifar10_2m3") -> None:
    def build(base: str = base, **overrides: Any) -> Model:
        if not isinstance(base, str) or base not in _SETTINGS:
            raise PresetError(f"base: expected one of {', '.join(_SETTINGS)}, got {base!r}")
        return maam_classifier(**{**_SETTINGS[base], "name": name, "ablation": name, **overrides})

    left_out = ("name", "ablation", *VARIANTS[name].ignored)
    options = preset_signature(maam_classifier, _SETTINGS[base], left_out, base=base)
    build.__signature__ = options  # type: ignore[attr-defined]
    register_preset(build, name)


for _name, _settings in _SETTINGS.items():
    register_variant(maam_classifier, _name, _settings, ablation="none")
for _ablation in VARIANTS:
    if _ablation != "none":
        _register_ablation(_ablation)
