"""MAAM as an image classifier (arXiv 2504.13574, sections 3.2 and 4.4), and its ablations."""

from __future__ import annotations

import inspect
import math
from typing import Any, Literal

from maam.errors import PresetError
from maam.spec.composites import OddSizes, Sizes, composite, one_each
from maam.spec.fields import Flag, Probability, Size
from maam.spec.layers.blocks import NormName
from maam.spec.layers.maam import NUM_CONVS, Fusion, NumAgents, agent_block, maam, reduce_layer
from maam.spec.node import Node
from maam.spec.presets import register_preset
from maam.spec.primitives import (
    Activation,
    Dropout,
    ElementwiseName,
    Flatten,
    Linear,
    MaxPool2d,
    Model,
    Sequential,
)

Ablation = Literal["none", "t_cnn", "without_agent_attention", "without_fusion", "without_reduce"]


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
        hidden_channels: as in `maam`, like all arguments down to `norm_layer`.
        num_agents: number of branches.
        kernel_sizes: kernel size, one or one for each branch.
        scales: average pooling in front, one or one for each branch.
        pool: max pooling, after the last convolution or one for each.
        fusion: how the branches become one.
        reduce: whether the reduce layer follows.
        depthwise: depthwise separable convolutions.
        act_layer: activation by name, also in the classifier.
        norm_layer: "batch_norm" or "identity".
        hidden_features: width d of the classifier.
        dropout: probability of dropout in front of the last linear layer; 0 leaves the layer out.
        ablation: "none", or what Table 2 of the paper takes away: "t_cnn" (one branch, no fusion, no reduce
            layer), "without_agent_attention" (the image max-pooled to the size of F, then the reduce layer),
            "without_fusion" (the mean of the branches), "without_reduce".
        name: a name for people to read.
    """
    branch: dict[str, Any] = {
        "hidden_channels": hidden_channels,
        "pool": pool,
        "depthwise": depthwise,
        "act_layer": act_layer,
        "norm_layer": norm_layer,
    }
    if ablation == "t_cnn":
        kernel_size = one_each("kernel_sizes", kernel_sizes, num_agents, "agents")[0]
        scale = one_each("scales", scales, num_agents, "agents")[0]
        block = agent_block(in_channels, channels, kernel_size=kernel_size, scale=scale, **branch)
        body: dict[str, Node] = {"agent": block}
    elif ablation == "without_agent_attention":
        whole = pool if len(pool) == 1 else one_each("pool", pool, NUM_CONVS, "convolutions")
        shrink = MaxPool2d(kernel_size=math.prod(whole))
        body = {
            "pool": shrink,
            "reduce": reduce_layer(in_channels, channels, act_layer=act_layer, norm_layer=norm_layer),
        }
    else:
        layer = maam(
            in_channels,
            channels,
            num_agents=num_agents,
            kernel_sizes=kernel_sizes,
            scales=scales,
            fusion="mean" if ablation == "without_fusion" else fusion,
            reduce=reduce and ablation != "without_reduce",
            **branch,
        )
        body = dict(layer.children)
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
_ABLATIONS = ("t_cnn", "without_agent_attention", "without_fusion", "without_reduce")
_FIXED = ("name", "ablation")


def _options(settings: dict[str, Any], first: tuple[inspect.Parameter, ...] = ()) -> inspect.Signature:
    """The signature of a preset: `first`, then the classifier's arguments with `settings` as defaults."""
    arguments = inspect.signature(maam_classifier).parameters.values()
    kept = [
        p.replace(kind=inspect.Parameter.KEYWORD_ONLY, default=settings.get(p.name, p.default))
        for p in arguments
        if p.name not in _FIXED
    ]
    return inspect.Signature([*first, *kept])


def _register(name: str) -> None:
    def build(**overrides: Any) -> Model:
        return maam_classifier(**{**_SETTINGS[name], "name": name, **overrides})

    build.__signature__ = _options(_SETTINGS[name])  # type: ignore[attr-defined]
    register_preset(build, name)


def _register_ablation(name: str) -> None:
    def build(base: str = "maam_cifar10_2m3", **overrides: Any) -> Model:
        if not isinstance(base, str) or base not in _SETTINGS:
            raise PresetError(f"base: expected one of {', '.join(_SETTINGS)}, got {base!r}")
        return maam_classifier(**{**_SETTINGS[base], "name": name, "ablation": name, **overrides})

    base = inspect.Parameter("base", inspect.Parameter.KEYWORD_ONLY, default="maam_cifar10_2m3")
    build.__signature__ = _options(_SETTINGS["maam_cifar10_2m3"], (base,))  # type: ignore[attr-defined]
    register_preset(build, name)


for _name in _SETTINGS:
    _register(_name)
for _name in _ABLATIONS:
    _register_ablation(_name)
