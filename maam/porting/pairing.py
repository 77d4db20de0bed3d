"""Which layer of one model stands for which of the other: by kind and shapes in order, names where they tell more."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from maam._messages import listed
from maam.backend.adapter import OWN, Call, Layer, Slot
from maam.errors import PortingError

_HELP = (
    "give both models the same layers, say which layer stands for which by names={PyTorch's: MindSpore's} (--names), "
    "or leave out what has no counterpart by skip=(...) (--skip)"
)
_CONTEXT = 2


def differences(torch: Layer, mindspore: Layer) -> str:
    """Why one layer cannot take the other's arrays; empty where it can."""
    if torch.kind != mindspore.kind:
        return f"a {torch.kind} is no {mindspore.kind}"
    own, other = torch.slots, mindspore.slots
    if torch.kind == OWN and set(own) != set(other):
        shapes = [sorted(slot.shape for slot in slots.values()) for slots in (own, other)]
        ordered = [[slot.shape for slot in slots.values()] for slots in (own, other)]
        return "" if ordered[0] == ordered[1] else f"arrays of shapes {shapes[0]} and {shapes[1]}"
    for name in [*own, *other]:
        if name not in own or name not in other:
            return _absent(torch.kind, name, has_torch=name in own)
        if not same_shape(torch.kind, own[name], other[name]):
            return f"{name} is {own[name].shape} and {other[name].shape}"
    return ""


def same_shape(kind: str, torch: Slot, mindspore: Slot) -> bool:
    """Whether the shapes are the same; MindSpore's convolution in one dimension has one of size 1 besides."""
    if torch.shape == mindspore.shape:
        return True
    one = "convolution" in kind and len(torch.shape) == 3 and len(mindspore.shape) == 4
    return one and mindspore.shape == (*torch.shape[:2], 1, torch.shape[2])


def explain_mismatch(torch: Sequence[Layer], mindspore: Sequence[Layer]) -> str:
    """Where two lists of layers part, and what would help."""
    keys = [[_signature(layer) for layer in layers] for layers in (torch, mindspore)]
    matcher = difflib.SequenceMatcher(None, keys[0], keys[1], autojunk=False)
    tag, i1, i2, j1, j2 = next(code for code in matcher.get_opcodes() if code[0] != "equal")
    counts = f"PyTorch has {len(torch)} layers with weights, MindSpore {len(mindspore)}"
    before = f" after {torch[i1 - 1].name!r} (MindSpore: {mindspore[j1 - 1].name!r})" if i1 and j1 else ""
    if tag == "delete":
        where = f"{_some(torch[i1:i2])} of PyTorch has no counterpart in MindSpore"
    elif tag == "insert":
        where = f"{_some(mindspore[j1:j2])} of MindSpore has no counterpart in PyTorch"
    else:
        where = f"{torch[i1]} of PyTorch meets {mindspore[j1]} of MindSpore: {differences(torch[i1], mindspore[j1])}"
    return f"the models cannot be matched: {counts};{before} {where}; {_HELP}"


def _signature(layer: Layer) -> tuple[str, ...]:
    """Equal for layers that fit."""
    wide = "convolution" in layer.kind
    shapes = {name: slot.shape for name, slot in layer.slots.items()}
    shapes = {n: (*s[:2], 1, s[2]) if wide and len(s) == 3 else s for n, s in shapes.items()}
    return (layer.kind, *(f"{'' if layer.kind == OWN else name}{shape}" for name, shape in sorted(shapes.items())))


def _some(layers: Sequence[Layer]) -> str:
    more = len(layers) - _CONTEXT
    text = ", ".join(str(layer) for layer in layers[:_CONTEXT])
    return f"{text} and {more} more" if more > 0 else text


_REMEDIES: Mapping[tuple[str, str], tuple[str, str]] = {
    ("convolution", "bias"): ("bias=", "has_bias="),
    ("transposed convolution", "bias"): ("bias=", "has_bias="),
    ("linear", "bias"): ("bias=", "has_bias="),
}


def _absent(kind: str, name: str, has_torch: bool) -> str:
    with_, without = ("PyTorch", "MindSpore") if has_torch else ("MindSpore", "PyTorch")
    text = f"{name} is there in {with_} and absent in {without}"
    if (kind, name) in _REMEDIES:
        own, other = _REMEDIES[kind, name]
        text += f" (set by {own} in PyTorch and {other} in MindSpore, whose defaults differ)"
    elif name.startswith("running_") and not has_torch:
        text += " (track_running_stats=False in PyTorch)"
    return text


class Names(NamedTuple):
    """MindSpore's path for a path in PyTorch; and the paths of what has no counterpart."""

    torch_to_mindspore: Any  # checked: a mapping
    skip: Sequence[str]


def check_names(torch: Sequence[Layer], mindspore: Sequence[Layer], names: Names) -> None:
    """Hold what the user named to what is there.

    Raises:
        PortingError: a path names neither a layer with weights nor what holds some, or is given twice.
    """
    if not isinstance(names.torch_to_mindspore, Mapping):
        kind = type(names.torch_to_mindspore).__name__
        raise PortingError(f"names: expected a mapping from PyTorch's names to MindSpore's, got a {kind}")
    if isinstance(names.skip, str):
        raise PortingError(f"skip: expected a sequence of names, got {names.skip!r}; write ({names.skip!r},)")
    own, other = _paths(torch), _paths(mindspore)
    for key, value in names.torch_to_mindspore.items():
        _check("names", key, own, "the PyTorch module")
        _check("names", value, other, "the MindSpore cell")
    for name in names.skip:
        _check("skip", name, [*own, *other], "neither model", negative=True)
    targets = list(names.torch_to_mindspore.values())
    if twice := [target for target in dict.fromkeys(targets) if targets.count(target) > 1]:
        raise PortingError(f"names: {listed(twice[:1])} of MindSpore is given for several layers of PyTorch")


def _paths(layers: Iterable[Layer]) -> list[str]:
    """The paths of all layers and of all that holds them."""
    found: dict[str, None] = {}
    for layer in layers:
        parts = layer.name.split(".")
        found |= dict.fromkeys(".".join(parts[: index + 1]) for index in range(len(parts)))
    return list(found)


def _check(what: str, name: object, paths: Sequence[str], where: str, negative: bool = False) -> None:
    if name in paths:
        return
    close = difflib.get_close_matches(str(name), paths, 1)
    hint = f"did you mean {listed(close)}?" if close else f"it has {listed(paths[:8])}, ..."
    verb = "has" if negative else "has no"
    raise PortingError(f"{what}: {where} {verb} layer with weights named {listed([str(name)])}; {hint}")


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


class Run(NamedTuple):
    """A run of a layer in PyTorch and its counterpart; None where MindSpore's model could not run."""

    pair: Pair
    torch: int
    mindspore: int | None


def align(
    pairs: Sequence[Pair],
    layers: tuple[Sequence[Layer], Sequence[Layer]],
    torch: Sequence[Call],
    mindspore: Sequence[Call] | None,
) -> list[Run]:
    """The runs that stand for each other, as indices into the two recordings, in PyTorch's running order."""
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
    """A pair's number for a layer with weights, else its kind; nothing for one that cannot be told."""
    return [str(indices[x.name]) if x.name in indices else "" if x.kind == OWN else x.kind for x in layers]


def _counted(tokens: Sequence[str]) -> list[tuple[str, int]]:
    """Each with how often it stood there before."""
    seen: Counter[str] = Counter()
    found = []
    for token in tokens:
        found.append((token, seen[token]))
        seen[token] += 1
    return found
