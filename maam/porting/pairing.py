"""Pairing of the layers of two models: in order, by name, or by kind and shapes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from maam.backend.adapter import OWN, Layer
from maam.errors import PortingError
from maam.porting.matching import Pair, exact_signature, explain_mismatch, merge, mismatch, signature
from maam.porting.names import check_names, pair_named
from maam.spec.node import is_within

BY_NAME = "by name"
BY_REGISTRATION = "by order of registration"
BY_RUNNING = "by running order"
BY_SHAPE = "by kind, shapes and order"


class Pairing(NamedTuple):
    """The pairs of all layers that hold arrays.

    Attributes:
        pairs: the pairs, in PyTorch's order.
        how: how they were found: `BY_NAME`, `BY_REGISTRATION`, `BY_RUNNING` or `BY_SHAPE`.
        alone: the paths of constant tables that only one model stores.
    """

    pairs: tuple[Pair, ...]
    how: str
    alone: tuple[str, ...] = ()


def pair_layers(
    torch: Sequence[Layer],
    mindspore: Sequence[Layer],
    *,
    names: Mapping[str, str] | None = None,
    skip: Sequence[str] = (),
    orders: tuple[Sequence[str], Sequence[str]] | None = None,
    writable: str = "",
) -> list[Pairing]:
    """Return the ways to pair all layers that hold arrays, those with the most equal names first.

    Args:
        torch: the layers of the PyTorch module in order of registration.
        mindspore: the layers of the MindSpore cell in order of registration.
        names: MindSpore's path for a path in PyTorch, of a layer or a container.
        skip: paths of layers, in either model, that have no counterpart.
        orders: the names of PyTorch's and of MindSpore's layers in running order.
        writable: the framework whose arrays will be written, so that an array that the other lacks can be made neutral.

    Raises:
        PortingError: the layers cannot be paired, or `names` or `skip` contains an unknown path.

    Example:
        >>> import torch
        >>> from maam.backend import load_backend
        >>> from maam.porting import pair_layers
        >>> layers = load_backend("torch").adapt(torch.nn.Sequential(torch.nn.Linear(4, 3))).layers()
        >>> pairing, = pair_layers(layers, layers)
        >>> [pair.name for pair in pairing.pairs], pairing.how
        (['0'], 'by order of registration')
    """
    names = {} if names is None else names
    own, other = ([x for x in layers if x.slots or x.kind.endswith(" norm")] for layers in (torch, mindspore))
    check_names(own, other, names, skip)
    own, other = ([layer for layer in layers if not is_within(layer.name, skip)] for layers in (own, other))
    fixed = pair_named(own, other, names, writable)
    taken = {pair.torch.name for pair in fixed}, {pair.mindspore.name for pair in fixed}
    rest = tuple([x for x in layers if x.name not in gone] for layers, gone in zip((own, other), taken, strict=True))
    rest, alone = _without_tables(*rest)
    merged = merge(rest[0], rest[1]), merge(rest[1], rest[0])
    found, closest = _fitting(*merged, orders, writable)
    split = _split(merged[0]), _split(merged[1])
    if not found:  # arrays of custom layers may be held by other layers
        found, closer = _fitting(*split, orders, writable)
        if not found:
            shown = split if closer and not closest else merged
            raise PortingError(explain_mismatch(*shown, writable, closest or closer))
    order = {layer.name: index for index, layer in enumerate(own)}
    pairings: dict[tuple[Pair, ...], Pairing] = {}
    for way, pairs in sorted(found, key=lambda item: -_count_equal_names(item[1])):
        ordered = tuple(sorted([*fixed, *pairs], key=lambda pair: order.get(pair.torch.name, -1)))
        pairings.setdefault(ordered, Pairing(ordered, way, alone))
    return list(pairings.values())


def _fitting(
    own: list[Layer], other: list[Layer], orders: tuple[Sequence[str], Sequence[str]] | None, writable: str
) -> tuple[list[tuple[str, list[Pair]]], list[Pair]]:
    """Return the ways that pair all layers, and the pairs that do not match in the closest other way."""
    tried = [(way, pairs) for way, pairs in _ways(own, other, orders) if pairs is not None]
    bad = [[pair for pair in pairs if mismatch(*pair, writable)] for _, pairs in tried]
    return [item for item, wrong in zip(tried, bad, strict=True) if not wrong], min(bad, key=len, default=[])


def _split(layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers with each array of a custom layer as a separate layer."""
    found: list[Layer] = []
    for layer in layers:
        if layer.kind != OWN or len(layer.slots) < 2:
            found.append(layer)
        else:
            found += [Layer(f"{layer.name}.{key}", OWN, {key: slot}) for key, slot in layer.slots.items()]
    return found


def _without_tables(own: list[Layer], other: list[Layer]) -> tuple[tuple[list[Layer], list[Layer]], tuple[str, ...]]:
    """Leave out custom layers that hold constant tables only, if the other model has no such layer."""
    alone: list[str] = []
    kept = []
    for layers, counterparts in ((own, other), (other, own)):
        shapes = [_shapes(layer) for layer in counterparts if layer.kind == OWN]
        here = []
        for layer in layers:
            constant = layer.kind == OWN and not any(slot.trainable for slot in layer.slots.values())
            if constant and _shapes(layer) not in shapes:
                alone += [slot.name for slot in layer.slots.values()]
            else:
                here.append(layer)
        kept.append(here)
    return (kept[0], kept[1]), tuple(alone)


def _shapes(layer: Layer) -> list[tuple[int, ...]]:
    return sorted(slot.shape for slot in layer.slots.values())


def _ways(
    own: list[Layer], other: list[Layer], orders: tuple[Sequence[str], Sequence[str]] | None
) -> Iterator[tuple[str, list[Pair] | None]]:
    """Yield the pairs by each way of ordering the layers; None if the numbers of layers differ."""
    yield BY_REGISTRATION, _in_order(own, other)
    running = None if orders is None else (_sorted(own, orders[0]), _sorted(other, orders[1]))
    if running is not None:
        yield BY_RUNNING, _in_order(*running)
    named = _by_name(own, other)
    gone = {pair.torch.name for pair in named}, {pair.mindspore.name for pair in named}
    left = [x for x in own if x.name not in gone[0]], [x for x in other if x.name not in gone[1]]
    rest = _in_order(*left)
    yield BY_NAME, None if rest is None else [*named, *rest]
    for lists in filter(None, (running, (own, other))):
        for key in (exact_signature, signature):
            yield BY_SHAPE, _by_signature(*lists, key)
            other_left = [x for x in lists[1] if x.name not in gone[1]]
            rest = _by_signature([x for x in lists[0] if x.name not in gone[0]], other_left, key)
            yield BY_NAME, None if rest is None else [*named, *rest]


def _in_order(own: Sequence[Layer], other: Sequence[Layer]) -> list[Pair] | None:
    return [Pair(a, b) for a, b in zip(own, other, strict=True)] if len(own) == len(other) else None


def _by_signature(own: Sequence[Layer], other: Sequence[Layer], key_of: Callable[[Layer], Any]) -> list[Pair] | None:
    """Return the pairs in order among the layers with equal keys, then among the rest; None if the numbers differ."""
    if len(own) != len(other):
        return None
    groups: dict[Any, list[Layer]] = defaultdict(list)
    for layer in other:
        groups[key_of(layer)].append(layer)
    pairs, left = [], []
    for layer in own:
        group = groups[key_of(layer)]
        if group:
            pairs.append(Pair(layer, group.pop(0)))
        else:
            left.append(layer)
    rest = [layer for group in groups.values() for layer in group]
    return [*pairs, *(Pair(a, b) for a, b in zip(left, rest, strict=True))]


def _sorted(layers: Sequence[Layer], order: Sequence[str]) -> list[Layer]:
    """Return the layers in running order, layers that never ran last."""
    first = {name: index for index, name in reversed(list(enumerate(order)))}
    return sorted(layers, key=lambda layer: first.get(layer.name.partition(", ")[0], len(order)))


def _by_name(own: Sequence[Layer], other: Sequence[Layer]) -> list[Pair]:
    by_name = {_plain(layer.name): layer for layer in other}
    candidates = [Pair(layer, by_name[_plain(layer.name)]) for layer in own if _plain(layer.name) in by_name]
    return [pair for pair in candidates if _has_equal_names(pair) and not mismatch(*pair)]


def _count_equal_names(pairs: Sequence[Pair]) -> int:
    return sum(_has_equal_names(pair) for pair in pairs)


def _has_equal_names(pair: Pair) -> bool:
    """Return whether both layers have the same name; an index in a sequence does not count as a name."""
    same = _plain(pair.torch.name) == _plain(pair.mindspore.name)
    return same and not pair.torch.name.rpartition(".")[2].isdigit()


def _plain(name: str) -> str:
    """Return the same text for downsample, down_sample and downSample."""
    return re.sub("_", "", name).lower()
