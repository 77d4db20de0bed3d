"""Constant factors of branches: moved into convolutions, past all that is positively homogeneous."""

from __future__ import annotations

import numpy as np

from maam.fusion.parts import Array, Part
from maam.spec import (
    Activation,
    AvgPool2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalPool,
    Identity,
    Linear,
    MaxPool2d,
    Model,
    Node,
    Parallel,
    Resize,
    Sequential,
    Unflatten,
)

CHAINS = (Sequential, Model, Resize)
"""Containers whose output is that of their last child, perhaps resized."""

_HOMOGENEOUS = (AvgPool2d, Dropout, Flatten, GlobalPool, Identity, MaxPool2d, Unflatten)


def branch_weights(part: Part) -> Array:
    """The constant weight of each branch of a `Parallel` that has them, softmax(alpha) or its own, float64."""
    assert isinstance(part.node, Parallel)
    if part.node.weights is not None:
        return np.array(part.node.weights)
    alpha = part.arrays["alpha"].astype(np.float64)
    powers = np.exp(alpha - alpha.max())
    return np.asarray(powers / powers.sum())


def is_homogeneous(node: Node) -> bool:
    """Whether f(c x) = c f(x) for every c >= 0."""
    if isinstance(node, Activation):
        return node.function in ("relu", "leaky_relu", "identity")
    if type(node) in CHAINS or (isinstance(node, Parallel) and node.merge in ("sum", "concat", "stack", "weighted")):
        return all(is_homogeneous(child) for child in node.nodes.values())
    return isinstance(node, _HOMOGENEOUS)


def multiply(part: Part, factor: float) -> Part | None:
    """`part` with its output times `factor`, a constant >= 0, and no more to compute than before; None: impossible."""
    if isinstance(part.node, (Conv2d, Linear)):
        return part._replace(arrays={name: factor * array for name, array in part.arrays.items()})
    if isinstance(part.node, Parallel):
        return _multiply_branches(part, part.node, factor)
    return _multiply_chain(part, factor) if type(part.node) in CHAINS else None


def _multiply_chain(part: Part, factor: float) -> Part | None:
    """The factor goes into the last child that takes it, if only homogeneous ones come after."""
    parts = part.parts
    for name, child in reversed(parts.items()):
        if (found := multiply(child, factor)) is not None:
            return part.with_parts({**parts, name: found})
        if not is_homogeneous(child.node):
            return None
    return None


def _multiply_branches(part: Part, node: Parallel, factor: float) -> Part | None:
    if node.weights is not None:
        return part.replace(weights=tuple(factor * weight for weight in node.weights))
    if node.merge == "softmax":
        return None
    parts = part.parts
    for name in node.children:
        if (found := multiply(parts[name], factor)) is None:
            return None
        parts[name] = found
    return part.with_parts(parts)
