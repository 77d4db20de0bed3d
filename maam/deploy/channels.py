"""Pruning of channels: which channels belong together, which can be removed, and the smaller spec.

A channel of a layer's output is used by every layer behind it: as a row or a column of weights, in batch norms, in
depthwise convolutions, in gates, and in sums, whose terms must keep the same channels. `_Graph` follows each channel
through the whole network and joins those that can only be removed together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

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
    Node,
    Parallel,
    Residual,
    Scale,
    Sequential,
    Unflatten,
)
from maam.spec.node import join_path

Array = np.ndarray[Any, Any]
Flow = np.ndarray[Any, np.dtype[np.int64]] | None
"""The channels of a map, or of a flattened map, each as the number of a channel; None if all of them are fixed."""
_FIXED = 0
"""The number of every channel that cannot be removed."""
_PASSING = (AvgPool2d, Dropout, Flatten, Identity, MaxPool2d, Unflatten)


class Channels(NamedTuple):
    """The channels of a network before and after pruning: the outputs of its convolutions and linear layers.

    Attributes:
        total: the number of channels before.
        removed: the number of removed channels.
        fixed: the number of channels that are outputs of the network or added to its input, or pass through a layer
            that needs all of them, such as a softmax.
        unscaled: the number of channels without a batch norm, whose importance is unknown.

    Example:
        >>> from maam.deploy import Channels
        >>> str(Channels(total=100, removed=40, fixed=10, unscaled=10))
        '40 of 100 channels removed (40 %); 10 are fixed by inputs and outputs, 10 have no batch norm'
    """

    total: int
    removed: int
    fixed: int
    unscaled: int

    def __str__(self) -> str:
        kept = [f"{self.fixed:,} are fixed by inputs and outputs"] if self.fixed else []
        kept += [f"{self.unscaled:,} have no batch norm"] if self.unscaled else []
        share = f"{self.removed:,} of {self.total:,} channels removed ({self.removed / max(self.total, 1):.0%})"
        return "; ".join(filter(None, [share.replace("%", " %"), ", ".join(kept)]))


class _Use(NamedTuple):
    """An axis of an array whose elements belong to channels."""

    name: str
    axis: int
    channels: np.ndarray[Any, np.dtype[np.int64]]


class _Graph:
    """The channels of a network, joined where they can only be removed together.

    Attributes:
        uses: the axes of the arrays.
        made: the numbers of the channels that each layer makes.
        norms: the paths of the batch norms.
    """

    def __init__(self, spec: Node) -> None:
        self.uses: list[_Use] = []
        self.made: dict[str, np.ndarray[Any, np.dtype[np.int64]]] = {}
        self.norms: list[_Use] = []
        self._parents = [_FIXED]
        self._fix(self._run(spec, "", None))

    def group(self, channel: int) -> int:
        """Return the number of the group of a channel; `_FIXED` if it cannot be removed."""
        while self._parents[channel] != channel:
            self._parents[channel] = channel = self._parents[self._parents[channel]]
        return channel

    # --- the flow of channels

    def _run(self, node: Node, path: str, x: Flow) -> Flow:
        """Return the channels of a layer's output for those of its input."""
        if isinstance(node, Parallel):
            return self._parallel(node, path, x)
        if isinstance(node, Sequential):
            y = x
            for name, child in node.nodes.items():
                y = self._run(child, f"{path}{name}.", y)
            return self._join([x, y]) if isinstance(node, (Residual, Scale)) else y
        if isinstance(node, (Conv2d, Linear)):
            return self._weighted(node, path, x)
        if isinstance(node, BatchNorm2d):
            y = self._expanded(x, node.num_features)
            self.uses += [_Use(f"{path}{p.name}", 0, y) for p in node.own_parameters()]
            self.norms.append(_Use(f"{path}weight", 0, y))
            return y
        if isinstance(node, GlobalPool) and node.axis == "channels":
            return np.array([_FIXED])
        if isinstance(node, (GlobalPool, *_PASSING)) or (isinstance(node, Activation) and node.function != "softmax"):
            return x
        self._fix(x)  # a softmax, or a layer that this function does not know
        return None

    def _parallel(self, node: Parallel, path: str, x: Flow) -> Flow:
        flows = [self._run(child, f"{path}{name}.", x) for name, child in node.children.items()]
        if node.weighting is not None:
            self._fix(self._run(node.weighting, f"{path}weighting.", x))
        if node.merge != "concat":
            return self._join(flows)
        if any(flow is None for flow in flows):
            for flow in flows:
                self._fix(flow)
            return None
        return np.concatenate([flow for flow in flows if flow is not None])

    def _weighted(self, node: Conv2d | Linear, path: str, x: Flow) -> Flow:
        inputs, outputs = node.own_parameters()[0].shape[1], node.own_parameters()[0].shape[0]
        groups = node.groups if isinstance(node, Conv2d) else 1
        given = self._expanded(x, inputs * groups)
        if groups == 1:
            self.uses.append(_Use(f"{path}weight", 1, given))
            made = self.made[path] = np.arange(outputs) + len(self._parents)
            self._parents += made.tolist()
        elif groups == inputs * groups == outputs:  # depthwise: each channel stays itself
            made = given
        else:
            self._fix(given)
            return None
        self.uses += [_Use(f"{path}{p.name}", 0, made) for p in node.own_parameters()]
        return made

    def _expanded(self, x: Flow, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return `count` channels; a flattened map has several values for each channel, one after the other."""
        if x is None or count % len(x):
            self._fix(x)
            return np.full(count, _FIXED)
        return np.repeat(x, count // len(x))

    # --- groups

    def _fix(self, x: Flow) -> None:
        for channel in () if x is None else x.tolist():
            self._unite(channel, _FIXED)

    def _join(self, flows: Sequence[Flow]) -> Flow:
        """Unite the channels of maps that are added or multiplied; a map of one channel is broadcast."""
        known = [flow for flow in flows if flow is not None]
        longest = max((len(flow) for flow in known), default=0)
        whole = [flow for flow in known if len(flow) == longest]
        if len(known) < len(flows) or any(len(flow) not in (1, longest) for flow in known):
            for flow in known:
                self._fix(flow)
            return None
        for flow in known:
            if len(flow) < longest:
                self._fix(flow)
        for flow in whole[1:]:
            for one, other in zip(whole[0].tolist(), flow.tolist(), strict=True):
                self._unite(one, other)
        return whole[0]

    def _unite(self, one: int, other: int) -> None:
        first, second = sorted((self.group(one), self.group(other)))
        self._parents[second] = first  # the smaller number, so that `_FIXED` stays


def prune_channels(spec: Node, arrays: Mapping[str, Array], share: float) -> tuple[Node, dict[str, Array], Channels]:
    """Remove a share of the channels: in each set of channels with the same layers, those with the smallest scales.

    The scale of a channel is the mean of its batch norms' |weight|, each divided by the mean of its layer.

    Args:
        spec: the architecture.
        arrays: its arrays by canonical name.
        share: the share of each set to remove, in [0, 1); at least one channel of it is kept.

    Returns:
        The new spec, its arrays, and the numbers of channels.
    """
    graph = _Graph(spec)
    scales = _scales(graph, arrays)
    removed: set[int] = set()
    for groups in _sets(graph):
        known = [group for group in groups if group in scales]
        if len(known) == len(groups):
            removed |= _smallest([scales[group] for group in groups], groups, share)
    kept: dict[str, Array] = dict(arrays)
    counts: dict[str, dict[int, int]] = {}
    for use in graph.uses:
        rows = [index for index, one in enumerate(use.channels.tolist()) if graph.group(one) not in removed]
        if len(rows) < len(use.channels):
            kept[use.name] = np.take(kept[use.name], rows, use.axis)
            counts.setdefault(use.name.rpartition(".")[0], {})[use.axis] = len(rows)
    return _resized(spec, "", counts), kept, _count(graph, scales, removed)


def _scales(graph: _Graph, arrays: Mapping[str, Array]) -> dict[int, float]:
    """Return the scale of each group of channels that has a batch norm."""
    found: dict[int, list[float]] = {}
    for use in graph.norms:
        weight = np.abs(arrays[use.name]).astype(np.float64)
        relative = weight / max(weight.mean(), np.finfo(np.float64).tiny)
        for channel, value in zip(use.channels.tolist(), relative.tolist(), strict=True):
            found.setdefault(graph.group(channel), []).append(value)
    return {group: math.fsum(values) / len(values) for group, values in found.items() if group != _FIXED}


def _sets(graph: _Graph) -> list[list[int]]:
    """Return the groups that can be removed, in sets of those that the same arrays use."""
    users: dict[int, list[int]] = {}
    for index, use in enumerate(graph.uses):
        for group in dict.fromkeys(graph.group(one) for one in use.channels.tolist()):
            users.setdefault(group, []).append(index)
    users.pop(_FIXED, None)
    sets: dict[tuple[int, ...], list[int]] = {}
    for group, indices in sorted(users.items()):
        sets.setdefault(tuple(indices), []).append(group)
    return list(sets.values())


def _smallest(scales: Sequence[float], groups: Sequence[int], share: float) -> set[int]:
    count = math.floor(round(share * len(groups), 9))  # 0.29 * 100 is below 29 in binary
    order = np.argsort(-np.array(scales), kind="stable")  # of equal ones the first are kept
    return {groups[index] for index in order[max(1, len(groups) - count) :]}


def _count(graph: _Graph, scales: Mapping[int, float], removed: set[int]) -> Channels:
    groups = [graph.group(one) for channels in graph.made.values() for one in channels.tolist()]
    return Channels(
        total=len(groups),
        removed=sum(group in removed for group in groups),
        fixed=sum(group == _FIXED for group in groups),
        unscaled=sum(group != _FIXED and group not in scales for group in groups),
    )


def _resized(node: Node, path: str, counts: Mapping[str, Mapping[int, int]]) -> Node:
    """Return a spec whose layers have the numbers of channels in `counts`, by path and axis of the weight."""
    if node.nodes:
        below = {name: join_path(path, name) for name in node.nodes}
        return node.with_nodes({name: _resized(child, below[name], counts) for name, child in node.nodes.items()})
    if path not in counts:
        return node
    outputs, inputs = counts[path].get(0), counts[path].get(1)
    if isinstance(node, BatchNorm2d):
        fields = {"num_features": outputs}
    elif isinstance(node, Linear):
        fields = {"out_features": outputs, "in_features": inputs}
    else:
        grouped = isinstance(node, Conv2d) and node.groups > 1
        fields = {"out_channels": outputs, "in_channels": outputs if grouped else inputs}
        fields |= {"groups": outputs} if grouped else {}
    return node.replace(**{name: count for name, count in fields.items() if count is not None})
