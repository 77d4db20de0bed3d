"""Fusion of batch norm and branch weights into convolutions, on a spec and its weights, in NumPy and float64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from maam.errors import DeploymentError
from maam.fusion.joining import join_branches
from maam.fusion.part import Part
from maam.spec import (
    Activation,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalPool,
    Graph,
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
from maam.spec.primitives import CURVES
from maam.weights import match

Array = np.ndarray[Any, Any]
CHAINS = (Sequential, Model, Resize)
"""Containers whose output is that of their last child, possibly resized."""


def fuse(spec: Node, weights: Mapping[str, Array] | None = None, *, join: bool = True) -> tuple[Node, dict[str, Array]]:
    """Return a smaller spec and weights that compute the same in inference.

    - Batch norm is fused into the convolution or linear layer before it, or into one without padding after it.
      Otherwise it becomes a depthwise 1x1 convolution.
    - Constant branch weights, including softmax(alpha), are fused into the last convolution of the branch if all layers
      after it are positively homogeneous. Otherwise they remain as constants.
    - If the branches of a sum begin with convolutions that differ only in their output channels, one convolution
      computes the channels of all branches. This is faster than several narrow ones. The branches become a `Graph`.
    - Dropout and identity layers are removed.
    - Parts that depend on the input (dynamic fusion, gates) do not change.

    The result has no running statistics and is not meant for training.

    Args:
        spec: the architecture.
        weights: arrays by canonical name, of any floating-point dtype.
        join: whether to join the first convolutions of branches; if not, all layers keep their names.

    Returns:
        The new spec and its arrays by canonical name, float64.

    Raises:
        DeploymentError: there is nothing to fuse, `spec` is not a spec, or `weights` is missing.
        WeightsError: the arrays do not fit the spec.

    Example:
        >>> from maam import fusion, spec
        >>> model = spec.preset("maam_digits")
        >>> fused, arrays = fusion.fuse(model, spec.draw(model.parameters(), seed=0))
        >>> model.num_parameters, fused.num_parameters
        (49117, 48938)
    """
    weights = _checked(spec, weights)
    check_fusible(spec)
    arrays, _ = match(spec, weights, source="weights")
    part = _fuse(Part(spec, {name: np.asarray(array, np.float64) for name, array in arrays.items()}))
    node, fused = join_branches(part) if join else part
    return node, {p.name: fused[p.name] for p in node.parameters()}


def _checked(spec: object, weights: Mapping[str, Array] | None) -> Mapping[str, Array]:
    if not isinstance(spec, Node) or weights is None:
        given = f"an object of type {type(spec).__name__}" if not isinstance(spec, Node) else "a spec alone"
        raise DeploymentError(
            f"fuse: expected a spec and its weights, got {given}; pass both, as "
            "maam.weights.read_weights(path) returns them, or call reparameterize() of a model that maam built"
        )
    return weights


def check_fusible(spec: Node) -> None:
    """Check that there is something to fuse.

    Raises:
        DeploymentError: the spec has neither batch norm nor learned branch weights.

    Example:
        >>> from maam import fusion, spec
        >>> fusion.check_fusible(spec.preset("cnn"))
        Traceback (most recent call last):
            ...
        maam.errors.DeploymentError: cnn: nothing to fuse: ...
    """
    if not is_fusible(spec):
        name = f"{spec.name}: " if isinstance(spec, Model) else ""
        raise DeploymentError(
            f"{name}nothing to fuse: no batch norm and no learned branch weights; "
            "the model is already fused or can be deployed without fusion"
        )


def is_fusible(spec: Node) -> bool:
    """Return whether a spec has batch norm or learned constant branch weights, which `fuse` removes.

    Example:
        >>> from maam import fusion, spec
        >>> fusion.is_fusible(spec.preset("maam_digits")), fusion.is_fusible(spec.preset("cnn"))
        (True, False)
    """
    return any(
        isinstance(node, BatchNorm2d) or (isinstance(node, Parallel) and node.merge == "softmax")
        for _, node in spec.walk()
    )


def branch_weights(part: Part) -> Array:
    """Return the constant weights of branches, `weights` or softmax(alpha), float64 (branches,)."""
    assert isinstance(part.node, Parallel)
    if part.node.weights is not None:
        return np.array(part.node.weights)
    alpha = part.arrays["alpha"].astype(np.float64)
    powers = np.exp(alpha - alpha.max())
    return np.asarray(powers / powers.sum())


def is_homogeneous(node: Node) -> bool:
    """Return whether f(c * x) = c * f(x) for every c >= 0."""
    if isinstance(node, Activation):
        return CURVES[node.function].homogeneous
    if type(node) in CHAINS or (isinstance(node, Parallel) and node.merge in ("sum", "concat", "stack", "weighted")):
        return all(is_homogeneous(child) for child in node.nodes.values())
    return isinstance(node, (AvgPool2d, Dropout, Flatten, GlobalPool, Identity, MaxPool2d, Unflatten))


def multiply(part: Part, factor: float) -> Part | None:
    """Return a part that computes `factor` >= 0 times the output at the same cost, or None if that is not possible."""
    if isinstance(part.node, (Conv2d, Linear)):
        return part._replace(arrays={name: factor * array for name, array in part.arrays.items()})
    if isinstance(part.node, Parallel):
        return _multiply_branches(part, part.node, factor)
    return _multiply_chain(part, factor) if type(part.node) in CHAINS else None


def _multiply_chain(part: Part, factor: float) -> Part | None:
    """Multiply the last child that can absorb the factor; all children after it must be homogeneous."""
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


Named = tuple[str, Part]


class Affine(NamedTuple):
    """Affine map of each channel: scale * x + shift, both (channels,)."""

    scale: Array
    shift: Array

    @classmethod
    def of(cls, part: Part) -> Affine:
        """Return the map that a batch norm computes in inference."""
        assert isinstance(part.node, BatchNorm2d)
        own = part.arrays
        scale = own["weight"] / np.sqrt(own["running_var"] + part.node.eps)
        return cls(scale, own["bias"] - own["running_mean"] * scale)

    def as_part(self) -> Part:
        """Return a depthwise 1x1 convolution that computes the map."""
        count = len(self.scale)
        node = Conv2d(in_channels=count, out_channels=count, kernel_size=1, groups=count)
        return Part(node, {"weight": self.scale.reshape(-1, 1, 1, 1), "bias": self.shift})


def append(parts: Sequence[Named], affine: Affine) -> list[Named] | None:
    """Return the chain followed by `affine`, fused into its last linear layer, or None if that is not possible."""
    for index in range(len(parts) - 1, -1, -1):
        name, part = parts[index]
        if (found := _append_to(part, affine)) is not None:
            return [*parts[:index], (name, found), *parts[index + 1 :]]
        if not _commutes(part.node, affine):
            return None
    return None


def prepend(parts: Sequence[Named], affine: Affine) -> list[Named] | None:
    """Return `affine` followed by the chain, fused into its first linear layer, or None if that is not possible."""
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
    """Use W (s x + t) + b = (W s) x + (W t + b). It does not hold with zero padding, which is added after t."""
    weight = part.arrays["weight"]
    groups = node.groups if isinstance(node, Conv2d) else 1
    inputs = weight.shape[1] * groups
    scale, shift = (
        np.repeat(array, inputs // len(affine.scale)) for array in affine
    )  # one for each value of a flattened map
    rows = weight.reshape(groups, -1, weight.shape[1], weight[0, 0].size)  # (groups, out / groups, in / groups, k * k)
    scaled = rows * scale.reshape(groups, 1, -1, 1)
    bias = (rows * shift.reshape(groups, 1, -1, 1)).sum((2, 3)).reshape(-1) + part.arrays.get("bias", 0.0)
    return Part(node.replace(bias=True), {"weight": scaled.reshape(weight.shape), "bias": bias})


def _commutes(node: Node, affine: Affine) -> bool:
    """Return whether `affine` before the layer and `affine` after the layer give the same result."""
    if isinstance(node, MaxPool2d):
        return bool((affine.scale >= 0).all())
    if isinstance(node, GlobalPool):
        return node.function == "avg" and node.axis == "spatial"
    if type(node) in (Sequential, Resize):
        return all(_commutes(child, affine) for child in node.nodes.values())
    return isinstance(node, (AvgPool2d, Unflatten))


def _fuse(part: Part) -> Part:
    if isinstance(part.node, BatchNorm2d):
        return Affine.of(part).as_part()
    if isinstance(part.node, Parallel):
        return _fuse_branches(part, part.node)
    if isinstance(part.node, Graph):
        return _fuse_graph(part, part.node)
    return _fuse_chain(part) if isinstance(part.node, Sequential) else part


def _fuse_chain(part: Part) -> Part:
    """Fuse each batch norm into the layers before it, then the remaining ones into the layers after it."""
    kept: list[Named] = []
    for name, child in part.parts.items():
        if _is_inert(child.node):
            continue
        if not isinstance(child.node, BatchNorm2d):
            kept.append((name, _fuse(child)))
        elif (found := append(kept, Affine.of(child))) is not None:
            kept = found
        else:
            kept.append((name, child))
    for index in range(len(kept) - 1, -1, -1):
        name, child = kept[index]
        if isinstance(child.node, BatchNorm2d):
            affine = Affine.of(child)
            rest = prepend(kept[index + 1 :], affine)
            kept[index:] = [(name, affine.as_part()), *kept[index + 1 :]] if rest is None else rest
    return part.with_parts(dict(kept))


def _fuse_graph(part: Part, node: Graph) -> Part:
    """Fuse each batch norm into the layer whose output only it gets; the others become depthwise convolutions."""
    parts = {name: child if isinstance(child.node, BatchNorm2d) else _fuse(child) for name, child in part.parts.items()}
    steps, first = node.steps, 1 + len(node.arrays)
    uses = Counter(index for step in steps for index in step.values)
    for step in steps:
        if step.op != "call" or not isinstance(parts[step.name].node, BatchNorm2d):
            continue
        affine = Affine.of(parts[step.name])
        index = step.values[0]
        source = steps[index - first].name if index >= first and uses[index] == 1 else ""
        found = append([(source, parts[source])], affine) if source else None
        if found is None:
            parts[step.name] = affine.as_part()
        else:
            parts |= {source: found[0][1], step.name: Part(Identity(), {})}
    return part.with_parts(parts)


def _is_inert(node: Node) -> bool:
    return isinstance(node, (Dropout, Identity)) or (isinstance(node, Activation) and node.function == "identity")


def _fuse_branches(part: Part, node: Parallel) -> Part:
    parts = {name: _fuse(child) for name, child in part.parts.items()}
    if node.merge not in ("softmax", "weighted"):
        return part.with_parts(parts)
    kept: list[float] = []
    for name, factor in zip(node.children, branch_weights(part).tolist(), strict=True):
        found = multiply(parts[name], factor) if factor >= 0 else None
        kept.append(factor if found is None else 1.0)
        parts[name] = parts[name] if found is None else found
    plain = all(weight == 1 for weight in kept)
    merged: dict[str, Any] = {"merge": "sum", "weights": None} if plain else {"merge": "weighted", "weights": kept}
    return Part(node.replace(**merged), {}).with_parts(parts)
