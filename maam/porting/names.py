"""Pairs of layers that the user names (`names=`), and layers that the user leaves out (`skip=`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from maam._messages import listed, nearest
from maam.backend.adapter import Layer
from maam.errors import PortingError
from maam.porting.matching import Pair, mismatch
from maam.spec.node import is_within


def pair_named(own: Sequence[Layer], other: Sequence[Layer], names: Mapping[str, str], writable: str) -> list[Pair]:
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
        if reason := mismatch(*pair, writable):
            raise PortingError(f"names: PyTorch's {pair.torch} does not match MindSpore's {pair.mindspore}: {reason}")
    _check_unique([pair.mindspore.name for pair in found])
    return found


def _starts(own: Sequence[Layer], names: Mapping[str, str]) -> Iterator[tuple[str, Layer]]:
    """Yield each layer at or below a path in `names`, with the longest such path."""
    for layer in own:
        if above := [name for name in names if is_within(layer.name, [name])]:
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
    rest = [layer for layer in other if is_within(layer.name, [target]) and layer.name not in taken[1]]
    if left and len(left) == len(rest):
        return [Pair(*both) for both in zip(left, rest, strict=True)]
    if inner and len(left) == len(inner):
        raise PortingError(
            f"names: PyTorch's {listed([start])} has {len(left)} layers with weights, MindSpore's {listed([target])} "
            f"has {len(rest)}, and no names are equal; name the layers themselves"
        )
    return []


def check_names(torch: Sequence[Layer], mindspore: Sequence[Layer], names: Any, skip: Any) -> None:
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
    close = nearest(name, paths)
    hint = f"did you mean {listed(close)}?" if close else f"known are {listed(paths[:8])}, ..."
    raise PortingError(f"{option}: {statement} layer with weights named {listed([str(name)])}; {hint}")
