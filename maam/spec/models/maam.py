"""MAAM as an image classifier (arXiv 2504.13574, sections 3.2 and 4.4), and its ablations."""

from __future__ import annotations

import math
from typing import Any

from maam.errors import PresetError
from maam.spec.composites import OddSizes, Sizes, composite
from maam.spec.fields import Flag, Probability, Size
from maam.spec.layers.blocks import NormName
from maam.spec.layers.maam import Fusion, NumAgents
from maam.spec.models.maam_ablations import VARIANTS, Ablation
from maam.spec.node import Node
from maam.spec.presets import preset_signature, register_preset
from maam.spec.primitives import (
    Activation,
    Dropout,
    ElementwiseName,
    Flatten,
    Linear,
    Model,
    Sequential,
)


@composite
def maam_classifier(
    num_classes: Size = 10,
    in_channels: Size = 3,
    *,
    image_size: Size = 32,
    channels: Size = 128,
    hidden_channels: Size | None = None,
    num_agents: NumAgents = 3,
    kernel_sizes: OddSizes = 3,  # type: ignore[assignment]  # one value serves all branches
    scales: Sizes = 1,  # type: ignore[assignment]
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
