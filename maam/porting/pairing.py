"""Pairing of the layers of two models: in order, by kind and shapes, or by name if that pairs more equal names."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from maam._messages import listed
from maam.backend.adapter import OWN, Call, Layer, Slot
from maam.errors import PortingError

BY_NAME = "by name"
BY_REGISTRATION = "by order of registration"
BY_RUNNING = "by running order"
_HELP = (
    "give both models the same layers, pass the pairs as names={PyTorch's: MindSpore's} (--names), "
    "or leave out layers without a counterpart with skip=(...) (--skip)"
)
_SHOWN = 2
"""The number of layers that an error shows."""
_REMEDIES: Mapping[tuple[str, str], tuple[str, str]] = {
    ("convolution", "bias"): ("bias=", "has_bias="),
    ("transposed convolution", "bias"): ("bias=", "has_bias="),
    ("linear", "bias"): ("bias=", "has_bias="),
}
"""The options of PyTorch and MindSpore that add an array, by the kind of layer and the array's name."""


class Pair(NamedTuple):
    """A layer of the PyTorch model and the corresponding layer of the MindSpore model.

    Attributes:
        torch: PyTorch's layer; its name is the path in the module.
        mindspore: MindSpore's layer; its name is the path in the cell.

    Example:
        >>> from maam.porting import Layer, Pair
        >>> Pair(Layer("conv1", "convolution"), Layer("stem", "convolution")).name
        'conv1 (MindSpore: stem)'
    """

    torch: Layer
    mindspore: Layer

    @property
    def name(self) -> str:
        """PyTorch's name, with MindSpore's if it differs."""
        own, other = self.torch.name or "the whole model", self.mindspore.name or "the whole model"
        return own if own == other else f"{own} (MindSpore: {other})"

    @property
    def slots(self) -> list[tuple[Slot, Slot]]:
        """The corresponding arrays: by name, or in order if a custom layer names them differently."""
        own, other = self.torch.slots, self.mindspore.slots
        keys = own if set(own) == set(other) else other
        return [(slot, other[key]) for slot, key in zip(own.values(), keys, strict=True)]


class Pairing(NamedTuple):
    """The pairs of all layers that hold arrays.

    Attributes:
        pairs: the pairs, in PyTorch's order.
        how: how they were found: `BY_NAME`, `BY_REGISTRATION` or `BY_RUNNING`.
    """

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
    """Return the best ways to pair all layers that hold arrays: those in which most pairs have equal names.

    Args:
        torch: the layers of the PyTorch module in order of registration.
        mindspore: the layers of the MindSpore cell in order of registration.
        names: MindSpore's path for a path in PyTorch, of a layer or a container.
        skip: paths of layers, in either model, that have no counterpart.
        orders: the names of PyTorch's and of MindSpore's layers in running order.

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
    own, other = ([layer for layer in layers if layer.slots] for layers in (torch, mindspore))
    _check_names(own, other, names, skip)
    own, other = ([layer for layer in layers if not _is_below(layer.name, skip)] for layers in (own, other))
    fixed = _pair_named(own, other, names)
    taken = {pair.torch.name for pair in fixed}, {pair.mindspore.name for pair in fixed}
    rest = [
        [layer for layer in layers if layer.name not in gone] for layers, gone in zip((own, other), taken, strict=True)
    ]
    found = [
        (way, pairs)
        for way, pairs in _ways(rest[0], rest[1], orders)
        if pairs is not None and not any(mismatch(*pair) for pair in pairs)
    ]
    if not found:
        raise PortingError(_explain_mismatch(rest[0], rest[1]))
    order = {layer.name: index for index, layer in enumerate(own)}
    best = max(_count_equal_names(pairs) for _, pairs in found)
    pairings = [
        Pairing(tuple(sorted([*fixed, *pairs], key=lambda pair: order[pair.torch.name])), way)
        for way, pairs in found
        if _count_equal_names(pairs) == best
    ]
    return list({pairing.pairs: pairing for pairing in reversed(pairings)}.values())[::-1]


def _ways(
    own: list[Layer], other: list[Layer], orders: tuple[Sequence[str], Sequence[str]] | None
) -> list[tuple[str, list[Pair] | None]]:
    """Return the pairs by each way of ordering the layers; None if the numbers of layers differ."""
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
    """Return the layers in running order, layers that never ran last."""
    first = {name: index for index, name in reversed(list(enumerate(order)))}
    return sorted(layers, key=lambda layer: first.get(layer.name, len(order)))


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


def _is_below(name: str, paths: Sequence[str]) -> bool:
    return any(name == path or name.startswith(f"{path}.") for path in paths)


def _pair_named(own: Sequence[Layer], other: Sequence[Layer], names: Mapping[str, str]) -> list[Pair]:
    """Return the pairs that `names` determines.

    Below a container, layers are paired by the rest of their names, and the remaining ones in order.

    Raises:
        PortingError: a path determines no pair, a layer is given twice, or paired layers do not match.
    """
    by_name = {layer.name: layer for layer in other}
    wanted = {layer.name: names[start] + layer.name[len(start) :] for start, layer in _starts(own, names)}
    found = [Pair(layer, by_name[wanted[layer.name]]) for layer in own if wanted.get(layer.name) in by_name]
    for start, target in names.items():
        found += _pair_rest(start, target, own, other, names, found)
    for pair in found:
        if reason := mismatch(*pair):
            raise PortingError(f"names: PyTorch's {pair.torch} does not match MindSpore's {pair.mindspore}: {reason}")
    _check_unique([pair.mindspore.name for pair in found])
    return found


def _starts(own: Sequence[Layer], names: Mapping[str, str]) -> Iterator[tuple[str, Layer]]:
    """Yield each layer at or below a path in `names`, with the longest such path."""
    for layer in own:
        if above := [name for name in names if _is_below(layer.name, [name])]:
            yield max(above, key=len), layer


def _pair_rest(
    start: str,
    target: str,
    own: Sequence[Layer],
    other: Sequence[Layer],
    names: Mapping[str, str],
    found: Sequence[Pair],
) -> list[Pair]:
    """Return pairs in order of the layers below `start` and `target` that have no equal names, if as many are left."""
    taken = {pair.torch.name for pair in found}, {pair.mindspore.name for pair in found}
    inner = [layer for above, layer in _starts(own, names) if above == start]
    left = [layer for layer in inner if layer.name not in taken[0]]
    rest = [layer for layer in other if _is_below(layer.name, [target]) and layer.name not in taken[1]]
    if left and len(left) == len(rest):
        return [Pair(*both) for both in zip(left, rest, strict=True)]
    if inner and len(left) == len(inner):
        raise PortingError(
            f"names: PyTorch's {listed([start])} has {len(left)} layers with weights, MindSpore's {listed([target])} "
            f"has {len(rest)}, and no names are equal; name the layers themselves"
        )
    return []


def _check_names(torch: Sequence[Layer], mindspore: Sequence[Layer], names: Any, skip: Any) -> None:
    """Check that all paths in `names` and `skip` exist in the models, and that no path is given twice."""
    if not isinstance(names, Mapping):
        kind = type(names).__name__
        raise PortingError(f"names: expected a mapping from PyTorch's names to MindSpore's, got a {kind}")
    if isinstance(skip, str):
        raise PortingError(f"skip: expected a sequence of names, got {skip!r}; write ({skip!r},)")
    own, other = _paths(torch), _paths(mindspore)
    for key, value in names.items():
        _check_path("names", key, own, "the PyTorch module has no")
        _check_path("names", value, other, "the MindSpore cell has no")
    for name in skip:
        _check_path("skip", name, [*own, *other], "neither model has a")
    _check_unique(list(names.values()))


def _check_unique(targets: Sequence[str]) -> None:
    if twice := [target for target in dict.fromkeys(targets) if targets.count(target) > 1]:
        raise PortingError(f"names: MindSpore's {listed(twice[:1])} is paired with several layers of PyTorch")


def _paths(layers: Iterable[Layer]) -> list[str]:
    """Return the paths of all layers and of their containers."""
    found: dict[str, None] = {}
    for layer in layers:
        parts = layer.name.split(".")
        found |= dict.fromkeys(".".join(parts[: index + 1]) for index in range(len(parts)))
    return list(found)


def _check_path(option: str, name: object, paths: Sequence[str], statement: str) -> None:
    if name in paths:
        return
    close = difflib.get_close_matches(str(name), paths, 1)
    hint = f"did you mean {listed(close)}?" if close else f"known are {listed(paths[:8])}, ..."
    raise PortingError(f"{option}: {statement} layer with weights named {listed([str(name)])}; {hint}")


def mismatch(torch: Layer, mindspore: Layer) -> str:
    """Return the reason why one layer cannot take the other's arrays; empty if it can."""
    if torch.kind != mindspore.kind:
        return f"the kinds {torch.kind} and {mindspore.kind} differ"
    own, other = torch.slots, mindspore.slots
    if torch.kind == OWN and set(own) != set(other):
        ordered = [[slot.shape for slot in slots.values()] for slots in (own, other)]
        shapes = [sorted(found) for found in ordered]
        return "" if ordered[0] == ordered[1] else f"the arrays have shapes {shapes[0]} and {shapes[1]}"
    for name in [*own, *other]:
        if name not in own or name not in other:
            return _explain_absence(torch.kind, name, has_torch=name in own)
        if not _same_shape(torch.kind, own[name], other[name]):
            return f"{name} has shape {own[name].shape} in PyTorch and {other[name].shape} in MindSpore"
    return ""


def _same_shape(kind: str, torch: Slot, mindspore: Slot) -> bool:
    """Return whether shapes correspond; MindSpore's 1-d convolution has an additional axis of size 1."""
    if torch.shape == mindspore.shape:
        return True
    one = "convolution" in kind and len(torch.shape) == 3 and len(mindspore.shape) == 4
    return one and mindspore.shape == (*torch.shape[:2], 1, torch.shape[2])


def _explain_absence(kind: str, name: str, has_torch: bool) -> str:
    with_, without = ("PyTorch", "MindSpore") if has_torch else ("MindSpore", "PyTorch")
    text = f"{with_} has a {name} and {without} does not"
    if (kind, name) in _REMEDIES:
        own, other = _REMEDIES[kind, name]
        text += f" (set by {own} in PyTorch and {other} in MindSpore, whose defaults differ)"
    elif name.startswith("running_") and not has_torch:
        text += " (track_running_stats=False in PyTorch)"
    return text


def _explain_mismatch(torch: Sequence[Layer], mindspore: Sequence[Layer]) -> str:
    """Return an error message with the first difference of two lists of layers."""
    keys = [[_signature(layer) for layer in layers] for layers in (torch, mindspore)]
    matcher = difflib.SequenceMatcher(None, keys[0], keys[1], autojunk=False)
    tag, i1, i2, j1, j2 = next(code for code in matcher.get_opcodes() if code[0] != "equal")
    counts = f"PyTorch has {len(torch)} layers with weights, MindSpore {len(mindspore)}"
    before = f" after {torch[i1 - 1].name!r} (MindSpore: {mindspore[j1 - 1].name!r})," if i1 and j1 else ""
    if tag == "delete":
        where = f"PyTorch's {_first_layers(torch[i1:i2])} has no counterpart in MindSpore"
    elif tag == "insert":
        where = f"MindSpore's {_first_layers(mindspore[j1:j2])} has no counterpart in PyTorch"
    else:
        reason = mismatch(torch[i1], mindspore[j1])
        where = f"PyTorch's {torch[i1]} does not match MindSpore's {mindspore[j1]}: {reason}"
    return f"the models cannot be paired: {counts};{before} {where}; {_HELP}"


def _signature(layer: Layer) -> tuple[str, ...]:
    """Return a key that is equal for layers that match."""
    wide = "convolution" in layer.kind
    shapes = {name: slot.shape for name, slot in layer.slots.items()}
    shapes = {n: (*s[:2], 1, s[2]) if wide and len(s) == 3 else s for n, s in shapes.items()}
    return (layer.kind, *(f"{'' if layer.kind == OWN else name}{shape}" for name, shape in sorted(shapes.items())))


def _first_layers(layers: Sequence[Layer]) -> str:
    more = len(layers) - _SHOWN
    text = ", ".join(str(layer) for layer in layers[:_SHOWN])
    return f"{text} and {more} more" if more > 0 else text


class Run(NamedTuple):
    """A run of a layer in PyTorch and the corresponding run in MindSpore.

    Attributes:
        pair: the layers.
        torch: the index of the call in PyTorch's recording.
        mindspore: the index in MindSpore's; None if its model could not run.
    """

    pair: Pair
    torch: int
    mindspore: int | None


def align(
    pairs: Sequence[Pair],
    layers: tuple[Sequence[Layer], Sequence[Layer]],
    torch: Sequence[Call],
    mindspore: Sequence[Call] | None,
) -> list[Run]:
    """Return the corresponding runs of layers in PyTorch's running order.

    Layers with weights correspond by their pairs, and others by their kinds between these.

    Args:
        pairs: the layers with weights.
        layers: all layers of PyTorch and of MindSpore.
        torch: PyTorch's calls.
        mindspore: MindSpore's calls; None if its model could not run.
    """
    tables = [{layer.name: layer for layer in side} for side in layers]
    own = _tokens([tables[0][call.name] for call in torch], {p.torch.name: i for i, p in enumerate(pairs)})
    right = layers[1] if mindspore is None else [tables[1][call.name] for call in mindspore]
    other = _tokens(right, {p.mindspore.name: i for i, p in enumerate(pairs)})
    found = {(token, count): index for index, (token, count) in enumerate(_counted(other)) if token.isdigit()}
    matched = {i: found[key] for i, key in enumerate(_counted(own)) if key in found}
    for i, j, size in difflib.SequenceMatcher(None, own, other, autojunk=False).get_matching_blocks():
        matched |= {i + k: j + k for k in range(size) if not own[i + k].isdigit() and own[i + k]}
    return [
        Run(Pair(tables[0][torch[i].name], right[j]), i, None if mindspore is None else j)
        for i, j in sorted(matched.items())
    ]


def _tokens(layers: Sequence[Layer], indices: dict[str, int]) -> list[str]:
    """Return the index of the pair for each layer with weights, the kind for others, and "" for unknown kinds."""
    return [str(indices[x.name]) if x.name in indices else "" if x.kind == OWN else x.kind for x in layers]


def _counted(tokens: Sequence[str]) -> list[tuple[str, int]]:
    """Return each token with the number of equal tokens before it."""
    seen: Counter[str] = Counter()
    found = []
    for token in tokens:
        found.append((token, seen[token]))
        seen[token] += 1
    return found
