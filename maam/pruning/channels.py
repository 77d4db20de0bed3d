"""Channels of small batch-norm scale (network slimming, arXiv 1708.06519)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from maam.fusion.parts import Part
from maam.spec import (
    Activation,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalPool,
    Identity,
    Linear,
    MaxPool2d,
    Model,
    Sequential,
    Unflatten,
)

Array = np.ndarray[Any, Any]
Path = tuple[str, ...]
Leaf = tuple[Path, Part]
_PASSING = (AvgPool2d, Dropout, Flatten, Identity, MaxPool2d, Unflatten)


class _Run(NamedTuple):
    """The layers from a convolution that makes channels to the one that takes them, by index into the leaves."""

    source: int
    norm: int
    between: tuple[int, ...]
    target: int


def prune_channels(part: Part, share: float) -> Part:
    """Drop, here and below, `share` of the channels between two layers of one chain: those of smallest |scale|.

    Only channels that nobody else sees: made by a convolution, scaled by the batch norm behind it, passed on by
    activations, pooling and depthwise convolutions, and taken by a convolution or a linear map.
    """
    if not part.parts:
        return part
    if not isinstance(part.node, Sequential):
        return part.with_parts({name: prune_channels(child, share) for name, child in part.parts.items()})
    leaves = [(path, prune_channels(leaf, share)) for path, leaf in _leaves(part)]
    found = dict(leaves)
    for run in _runs([leaf for _, leaf in leaves]):
        paths = [path for path, _ in leaves]
        kept = _kept(found[paths[run.norm]], share)
        for index in (run.source, run.norm, *run.between):
            found[paths[index]] = _with_outputs(found[paths[index]], kept)
        scales = len(leaves[run.norm][1].arrays["weight"])
        found[paths[run.target]] = _with_inputs(found[paths[run.target]], kept, scales)
    return _rebuilt(part, found)


def _leaves(part: Part, path: Path = ()) -> Iterator[Leaf]:
    """The layers of a chain in running order; chains inside it are opened, other containers count as one layer."""
    for name, child in part.parts.items():
        if type(child.node) in (Sequential, Model):
            yield from _leaves(child, (*path, name))
        else:
            yield (*path, name), child


def _rebuilt(part: Part, leaves: dict[Path, Part], path: Path = ()) -> Part:
    parts = {}
    for name, child in part.parts.items():
        below = (*path, name)
        parts[name] = leaves[below] if below in leaves else _rebuilt(child, leaves, below)
    return part.with_parts(parts) if parts else part


def _runs(leaves: Sequence[Part]) -> Iterator[_Run]:
    for source, leaf in enumerate(leaves):
        if isinstance(leaf.node, Conv2d) and leaf.node.groups == 1:
            run = _run_from(source, leaves)
            if run is not None:
                yield run


def _run_from(source: int, leaves: Sequence[Part]) -> _Run | None:
    norm = source + 1
    between: list[int] = []
    if norm >= len(leaves) or not isinstance(leaves[norm].node, BatchNorm2d):
        return None
    for index in range(norm + 1, len(leaves)):
        node = leaves[index].node
        if isinstance(node, Linear) or (isinstance(node, Conv2d) and node.groups == 1):
            return _Run(source, norm, tuple(between), index)
        depthwise = isinstance(node, Conv2d) and node.groups == node.in_channels == node.out_channels
        if depthwise or isinstance(node, BatchNorm2d):
            if node.in_channels_expected != leaves[norm].node.in_channels_expected:  # flattened in between
                return None
            between.append(index)
        elif not (isinstance(node, _PASSING) or _is_elementwise(node)):
            return None
    return None


def _is_elementwise(node: Any) -> bool:
    if isinstance(node, GlobalPool):
        return bool(node.axis == "spatial")
    return isinstance(node, Activation) and node.function != "softmax"


def _kept(norm: Part, share: float) -> Array:
    """The channels that stay, ascending."""
    scales = np.abs(norm.arrays["weight"])
    dropped = math.floor(round(share * len(scales), 9))  # 0.29 of 100 are 29, though 0.29 * 100 < 29 in binary
    count = max(1, len(scales) - dropped)
    return np.sort(np.argsort(-scales, kind="stable")[:count])


def _with_outputs(part: Part, kept: Array) -> Part:
    arrays = {name: array[kept] for name, array in part.arrays.items()}
    count = len(kept)
    if isinstance(part.node, BatchNorm2d):
        return Part(part.node.replace(num_features=count), arrays)
    assert isinstance(part.node, Conv2d)
    grouped = {"in_channels": count, "groups": count} if part.node.groups > 1 else {}
    return Part(part.node.replace(out_channels=count, **grouped), arrays)


def _with_inputs(part: Part, kept: Array, channels: int) -> Part:
    """Flattened maps have several inputs for each channel, the channels slowest."""
    weight = part.arrays["weight"]
    each = weight.shape[1] // channels
    columns = (kept[:, None] * each + np.arange(each)).reshape(-1)
    field = "in_features" if isinstance(part.node, Linear) else "in_channels"
    return Part(part.node.replace(**{field: len(columns)}), {**part.arrays, "weight": weight[:, columns]})
