"""The rewrite of a spec and its weights for deployment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from maam.errors import DeploymentError
from maam.fusion.affine import Affine, Named, append, prepend
from maam.fusion.factors import branch_weights, multiply
from maam.fusion.parts import Part
from maam.spec import Activation, BatchNorm2d, Dropout, Identity, Model, Node, Parallel, Sequential
from maam.weights import match

Array = np.ndarray[Any, Any]


def fuse(spec: Node, weights: Mapping[str, Array] | None = None) -> tuple[Node, dict[str, Array]]:
    """A smaller spec and its weights that compute the same in inference.

    Batch norm goes into the convolution or linear map before it, else into an unpadded one after it, else it becomes a
    depthwise 1x1 convolution. A constant branch weight, softmax(alpha)_i among them, goes into the branch's last
    convolution where all that follows is positively homogeneous, else it stays as a constant. Dropout and identities
    go. What depends on the input (dynamic fusion, gates) stays. The result is an ordinary spec without running
    statistics, which has no training of its own.

    Args:
        spec: the architecture.
        weights: its arrays by canonical name, of any floating-point dtype; without them there is nothing to fuse.

    Returns:
        The new spec and its arrays by canonical name, float64.

    Raises:
        DeploymentError: there is nothing to fuse, as in a spec that was fused before, or `spec` is none.
        WeightsError: the arrays do not fit the spec.
    """
    weights = _checked(spec, weights)
    check_fusible(spec)
    arrays, _ = match(spec, weights, source="weights")
    node, fused = _fuse(Part(spec, {name: np.asarray(array, np.float64) for name, array in arrays.items()}))
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
    """Raise `DeploymentError` where `fuse` has nothing to do."""
    if not is_fusible(spec):
        name = f"{spec.name}: " if isinstance(spec, Model) else ""
        raise DeploymentError(
            f"{name}nothing to fuse: no batch norm and no learned branch weights; "
            "the model was fused before, or can be deployed as it is"
        )


def is_fusible(spec: Node) -> bool:
    """Whether the spec has batch norm or learned constant branch weights: what `fuse` never leaves behind."""
    return any(
        isinstance(node, BatchNorm2d) or (isinstance(node, Parallel) and node.merge == "softmax")
        for _, node in spec.walk()
    )


def _fuse(part: Part) -> Part:
    if isinstance(part.node, BatchNorm2d):
        return Affine.of(part).as_part()
    if isinstance(part.node, Parallel):
        return _fuse_branches(part, part.node)
    return _fuse_chain(part) if isinstance(part.node, Sequential) else part


def _fuse_chain(part: Part) -> Part:
    """First each batch norm into what comes before it; then what is left into what comes after."""
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
