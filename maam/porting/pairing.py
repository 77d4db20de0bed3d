"""Which layer of one model stands for which of the other: by kind and shapes in order, names where they tell more."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from maam.errors import PortingError
from maam.names import listed
from maam.porting.half import Layer, Slot
from maam.porting.mismatch import differences, explain_mismatch
from maam.porting.naming import Names, check_names

BY_NAME = "by name"
BY_REGISTRATION = "by order of registration"
BY_RUNNING = "by running order"


class Pair(NamedTuple):
    """A layer of each model; either name is that model's own path."""

    torch: Layer
    mindspore: Layer

    @property
    def name(self) -> str:
        """Both names in one; once where they are the same."""
        own, other = self.torch.name or "the whole", self.mindspore.name or "the whole"
        return own if own == other else f"{own} (MindSpore: {other})"

    @property
    def slots(self) -> list[tuple[Slot, Slot]]:
        """Their arrays, in pairs: by name, or in order where a layer of your own names them otherwise."""
        own, other = self.torch.slots, self.mindspore.slots
        keys = own if set(own) == set(other) else other
        return [(slot, other[key]) for slot, key in zip(own.values(), keys, strict=True)]


class Pairing(NamedTuple):
    """All pairs of layers that hold arrays, in PyTorch's order, and how they were found."""

    pairs: tuple[Pair, ...]
    how: str


def pair_layers(
    torch: Sequence[Layer],
    mindspore: Sequence[Layer],
    *,
    names: Mapping[str, str] | None = None,
    skip: Sequence[str] = (),
    orders: tuple[Sequence[str], Sequence[str]] | None = None,
) -> list[Pairing]:
    """The ways to pair all layers that hold arrays, the best first; all of them name layers alike equally often.

    Args:
        torch: the PyTorch module's layers in order of registration.
        mindspore: the MindSpore cell's.
        names: MindSpore's path for a path in PyTorch, of a layer or of what holds layers.
        skip: paths, of either model, of layers that have no counterpart.
        orders: the names of the layers in running order, in PyTorch and in MindSpore.

    Raises:
        PortingError: the layers cannot be paired, or `names` or `skip` names no layer.
    """
    own, other = ([layer for layer in layers if layer.slots] for layers in (torch, mindspore))
    check_names(own, other, Names(names or {}, skip))
    own, other = ([layer for layer in layers if not _below(layer.name, skip)] for layers in (own, other))
    fixed = _fixed(own, other, names or {})
    taken = {pair.torch.name for pair in fixed}, {pair.mindspore.name for pair in fixed}
    rest = [
        [layer for layer in layers if layer.name not in gone] for layers, gone in zip((own, other), taken, strict=True)
    ]
    ways = _ways(rest[0], rest[1], orders)
    found = [(way, pairs) for way, pairs in ways if pairs is not None and _all_fit(pairs)]
    if not found:
        raise PortingError(explain_mismatch(rest[0], rest[1]))
    order = {layer.name: index for index, layer in enumerate(own)}
    best = max(_alike(pairs) for _, pairs in found)
    pairings = [
        Pairing(tuple(sorted([*fixed, *pairs], key=lambda pair: order[pair.torch.name])), way)
        for way, pairs in found
        if _alike(pairs) == best
    ]
    return list({pairing.pairs: pairing for pairing in reversed(pairings)}.values())[::-1]


def _fixed(own: Sequence[Layer], other: Sequence[Layer], names: Mapping[str, str]) -> list[Pair]:
    """The pairs that the user's map of names settles: below each path by the rest of the name, what is left in order.

    Raises:
        PortingError: a path settles no layer, a layer is given twice, or two that are paired differ.
    """
    by_name = {layer.name: layer for layer in other}
    wanted = {layer.name: names[start] + layer.name[len(start) :] for start, layer in _starts(own, names)}
    found = [Pair(layer, by_name[wanted[layer.name]]) for layer in own if wanted.get(layer.name) in by_name]
    for start, target in names.items():
        found += _left_in_order(start, target, own, other, names, found)
    for pair in found:
        if reason := differences(*pair):
            raise PortingError(
                f"names: {pair.torch} of PyTorch cannot stand for {pair.mindspore} of MindSpore: {reason}"
            )
    given = [pair.mindspore.name for pair in found]
    if twice := [name for name in dict.fromkeys(given) if given.count(name) > 1]:
        raise PortingError(f"names: {listed(twice[:1])} of MindSpore is given for several layers of PyTorch")
    return found


def _starts(own: Sequence[Layer], names: Mapping[str, str]) -> Iterator[tuple[str, Layer]]:
    """Each layer that the map names, or that lies below a path of it: the longest such path, and the layer."""
    for layer in own:
        if above := [name for name in names if _below(layer.name, [name])]:
            yield max(above, key=len), layer


def _left_in_order(
    start: str,
    target: str,
    own: Sequence[Layer],
    other: Sequence[Layer],
    names: Mapping[str, str],
    found: Sequence[Pair],
) -> list[Pair]:
    """The layers below `start` and `target` whose names differ within, in order of registration if as many are left."""
    taken = {pair.torch.name for pair in found}, {pair.mindspore.name for pair in found}
    inner = [layer for above, layer in _starts(own, names) if above == start]
    left = [layer for layer in inner if layer.name not in taken[0]]
    rest = [layer for layer in other if _below(layer.name, [target]) and layer.name not in taken[1]]
    if left and len(left) == len(rest):
        return [Pair(*both) for both in zip(left, rest, strict=True)]
    if inner and len(left) == len(inner):
        raise PortingError(
            f"names: {listed([start])} of PyTorch holds {len(left)} layers with weights and {listed([target])} of "
            f"MindSpore {len(rest)}, and no names agree; name the layers themselves"
        )
    return []


def _ways(
    own: list[Layer], other: list[Layer], orders: tuple[Sequence[str], Sequence[str]] | None
) -> list[tuple[str, list[Pair] | None]]:
    ways: list[tuple[str, list[Pair] | None]] = [(BY_REGISTRATION, _in_order(own, other))]
    if orders is not None:
        ways.append((BY_RUNNING, _in_order(_sorted(own, orders[0]), _sorted(other, orders[1]))))
    named = _by_name(own, other)
    left = [x for x in own if x not in [p.torch for p in named]], [x for x in other if x not in [p[1] for p in named]]
    rest = _in_order(*left)
    return [*ways, (BY_NAME, None if rest is None else [*named, *rest])]


def _in_order(own: Sequence[Layer], other: Sequence[Layer]) -> list[Pair] | None:
    return [Pair(a, b) for a, b in zip(own, other, strict=True)] if len(own) == len(other) else None


def _sorted(layers: Sequence[Layer], order: Sequence[str]) -> list[Layer]:
    """In running order; what never ran comes last."""
    first = {name: index for index, name in reversed(list(enumerate(order)))}
    return sorted(layers, key=lambda layer: first.get(layer.name, len(order)))


def _by_name(own: Sequence[Layer], other: Sequence[Layer]) -> list[Pair]:
    by_name = {_plain(layer.name): layer for layer in other}
    candidates = [Pair(layer, by_name[_plain(layer.name)]) for layer in own if _plain(layer.name) in by_name]
    return [pair for pair in candidates if _is_named(pair) and not differences(*pair)]


def _all_fit(pairs: Sequence[Pair]) -> bool:
    return not any(differences(*pair) for pair in pairs)


def _alike(pairs: Sequence[Pair]) -> int:
    return sum(_is_named(pair) for pair in pairs)


def _is_named(pair: Pair) -> bool:
    """Whether both have the same name; an index in a sequence is no name."""
    same = _plain(pair.torch.name) == _plain(pair.mindspore.name)
    return same and not pair.torch.name.rpartition(".")[2].isdigit()


def _plain(name: str) -> str:
    """downsample, down_sample and downSample are one name."""
    return re.sub("_", "", name).lower()


def _below(name: str, paths: Sequence[str]) -> bool:
    return any(name == path or name.startswith(f"{path}.") for path in paths)
