"""Joining of parallel branches: one convolution computes the first convolutions of all branches."""

from __future__ import annotations

from itertools import accumulate, pairwise, takewhile

import numpy as np

from maam.fusion.part import Part
from maam.spec import Activation, AvgPool2d, Conv2d, Graph, MaxPool2d, Node, Parallel, Sequential

MAX_BRANCHES = 24
"""The largest number of branches that are joined: the formula of a graph has a limited length and depth."""
BLOCK = 64
"""Convolutions whose number of channels is a multiple of this number were not faster when joined."""


def join_branches(part: Part) -> Part:
    """Return a part in which the branches of each sum share their first layers, where these match.

    The branches must begin with a convolution of the same kernel, stride, padding and dilation, whose number of
    channels is not a multiple of `BLOCK`. One convolution then computes the channels of all branches. Activations and
    pooling after it are joined, too. The rest of each branch gets its own channels.

    Args:
        part: a fused node; its descendants are searched too.
    """
    part = part.with_parts({name: join_branches(child) for name, child in part.parts.items()}) if part.parts else part
    node = part.node
    if not isinstance(node, Parallel) or node.merge not in ("sum", "weighted") or len(node.children) > MAX_BRANCHES:
        return part
    if len(node.children) == 1 or not all(type(child) is Sequential for child in node.children.values()):
        return part
    return _joined_branches(node, [list(branch.parts.items()) for branch in part.parts.values()]) or part


def _joined_branches(node: Parallel, branches: list[list[tuple[str, Part]]]) -> Part | None:
    layers = zip(*([layer for _, layer in branch] for branch in branches), strict=False)
    count = sum(1 for _ in takewhile(lambda found: _are_alike(found[1], first=not found[0]), enumerate(layers)))
    if not count:
        return None
    firsts = [branch[0][1] for branch in branches]
    head = dict(branches[0][:count]) | {branches[0][0][0]: _joined(firsts)}
    tails = [dict(branch[count:]) for branch in branches]
    parts = {"head": _chain(head)} | {f"branch{index}": _chain(tail) for index, tail in enumerate(tails) if tail}
    graph = Graph(children={name: inner.node for name, inner in parts.items()}, formula=_formula(node, firsts, tails))
    return Part(graph, {}).with_parts(parts)


def _are_alike(layers: tuple[Part, ...], *, first: bool) -> bool:
    """Return whether one layer can compute what the branches compute at the same depth."""
    nodes = [layer.node for layer in layers]
    if first:
        convs = [node for node in nodes if isinstance(node, Conv2d) and node.groups == 1 and node.out_channels % BLOCK]
        return len(convs) == len(nodes) and len({conv.replace(out_channels=1) for conv in convs}) == 1
    return all(node == nodes[0] for node in nodes) and _treats_channels_alike(nodes[0])


def _treats_channels_alike(node: Node) -> bool:
    """Return whether a layer without parameters computes each channel from the same channel of its input."""
    return isinstance(node, (AvgPool2d, MaxPool2d)) or (isinstance(node, Activation) and node.function != "softmax")


def _joined(convs: list[Part]) -> Part:
    """Return a convolution that computes the channels of all, in order."""
    # weight (out, in, k, k) and bias (out,), joined along out
    arrays = {name: np.concatenate([conv.arrays[name] for conv in convs]) for name in convs[0].arrays}
    return convs[0].replace(out_channels=len(arrays["weight"]))._replace(arrays=arrays)


def _chain(parts: dict[str, Part]) -> Part:
    return Part(Sequential(children={name: part.node for name, part in parts.items()}), {}).with_parts(parts)


def _formula(node: Parallel, firsts: list[Part], tails: list[dict[str, Part]]) -> str:
    """Return the formula of a graph with the children head and branch0, branch1, ...; equal weights are a factor."""
    bounds = pairwise(accumulate((len(first.arrays["weight"]) for first in firsts), initial=0))
    slices = [f"maps[{start}:{stop}]" for start, stop in bounds]
    terms = [f"branch{index}({own})" if tails[index] else own for index, own in enumerate(slices)]
    weights = node.weights or (1.0,)
    if len(set(weights)) == 1:
        total = " + ".join(terms)
        return f"maps = head(x); {total}" if weights[0] == 1 else f"maps = head(x); {weights[0]!r} * ({total})"
    return "maps = head(x); " + " + ".join(f"{weight!r} * {term}" for weight, term in zip(weights, terms, strict=True))
