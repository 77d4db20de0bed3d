"""Batch norm in inference: y = scale x + shift, a channel at a time, moved into the linear layers beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from maam.fusion.factors import CHAINS
from maam.fusion.parts import Part
from maam.spec import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Flatten,
    GlobalPool,
    Linear,
    MaxPool2d,
    Model,
    Node,
    Resize,
    Sequential,
    Unflatten,
)

Array = np.ndarray[Any, Any]
Named = tuple[str, Part]


class Affine(NamedTuple):
    """scale x + shift, both (channels,)."""

    scale: Array
    shift: Array

    @classmethod
    def of(cls, part: Part) -> Affine:
        """What a batch norm with these arrays computes in inference."""
        assert isinstance(part.node, BatchNorm2d)
        own = part.arrays
        scale = own["weight"] / np.sqrt(own["running_var"] + part.node.eps)
        return cls(scale, own["bias"] - own["running_mean"] * scale)

    def as_part(self) -> Part:
        """A depthwise 1x1 convolution that computes it."""
        count = len(self.scale)
        node = Conv2d(in_channels=count, out_channels=count, kernel_size=1, groups=count)
        return Part(node, {"weight": self.scale.reshape(-1, 1, 1, 1), "bias": self.shift})


def append(parts: Sequence[Named], affine: Affine) -> list[Named] | None:
    """The chain `parts` followed by `affine`, which is moved into its last linear layer; None: none can take it."""
    for index in range(len(parts) - 1, -1, -1):
        name, part = parts[index]
        if (found := _append_to(part, affine)) is not None:
            return [*parts[:index], (name, found), *parts[index + 1 :]]
        if not _commutes(part.node, affine):
            return None
    return None


def prepend(parts: Sequence[Named], affine: Affine) -> list[Named] | None:
    """`affine` followed by the chain `parts`, moved into its first linear layer; None: none can take it."""
    for index, (name, part) in enumerate(parts):
        if (found := _prepend_to(part, affine)) is not None:
            return [*parts[:index], (name, found), *parts[index + 1 :]]
        if not (isinstance(part.node, Flatten) or _commutes(part.node, affine)):
            return None
    return None


def _append_to(part: Part, affine: Affine) -> Part | None:
    if isinstance(part.node, (Conv2d, Linear)):
        weight = part.arrays["weight"]
        scale = affine.scale.reshape(-1, *[1] * (weight.ndim - 1))
        bias = part.arrays.get("bias", 0.0) * affine.scale + affine.shift
        return Part(part.node.replace(bias=True), {"weight": scale * weight, "bias": bias})
    if type(part.node) in CHAINS and (found := append(list(part.parts.items()), affine)) is not None:
        return part.with_parts(dict(found))
    return None


def _prepend_to(part: Part, affine: Affine) -> Part | None:
    node = part.node
    if isinstance(node, Linear) or (isinstance(node, Conv2d) and node.padding == 0):
        return _prepend_to_linear(part, node, affine)
    if type(node) in (Sequential, Model) and (found := prepend(list(part.parts.items()), affine)) is not None:
        return part.with_parts(dict(found))
    return None


def _prepend_to_linear(part: Part, node: Linear | Conv2d, affine: Affine) -> Part:
    """W (s x + t) + b = (W s) x + (W t + b); zero padding would come between x and t."""
    weight = part.arrays["weight"]
    groups = node.groups if isinstance(node, Conv2d) else 1
    inputs = weight.shape[1] * groups
    scale, shift = (np.repeat(array, inputs // len(affine.scale)) for array in affine)  # flattened maps: one a value
    rows = weight.reshape(groups, -1, weight.shape[1], weight[0, 0].size)  # (groups, out / groups, in / groups, k * k)
    scaled = rows * scale.reshape(groups, 1, -1, 1)
    bias = (rows * shift.reshape(groups, 1, -1, 1)).sum((2, 3)).reshape(-1) + part.arrays.get("bias", 0.0)
    return Part(node.replace(bias=True), {"weight": scaled.reshape(weight.shape), "bias": bias})


def _commutes(node: Node, affine: Affine) -> bool:
    """Whether it makes no difference if `affine` comes before or after the layer."""
    if isinstance(node, MaxPool2d):
        return bool((affine.scale >= 0).all())
    if isinstance(node, GlobalPool):
        return node.function == "avg" and node.axis == "spatial"
    if type(node) in (Sequential, Resize):
        return all(_commutes(child, affine) for child in node.nodes.values())
    return isinstance(node, (AvgPool2d, Unflatten))
