"""Branches of small fusion weight."""

from __future__ import annotations

from maam.fusion.factors import branch_weights
from maam.fusion.parts import Part
from maam.spec import Parallel


def prune_branches(part: Part, least: float) -> Part:
    """Drop, here and below, each branch whose softmax(alpha)_i is below `least`, but never the heaviest one.

    The weights of those that stay add up to 1 again.
    """
    parts = {name: prune_branches(child, least) for name, child in part.parts.items()}
    if not (isinstance(part.node, Parallel) and part.node.merge == "softmax"):
        return part.with_parts(parts) if parts else part
    weights = branch_weights(part)
    kept = [index for index, weight in enumerate(weights) if weight >= least or index == int(weights.argmax())]
    names = [list(parts)[index] for index in kept]
    arrays = {**part.arrays, "alpha": part.arrays["alpha"][kept]}
    return Part(part.node, arrays).with_parts({name: parts[name] for name in names})
