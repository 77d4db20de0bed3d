"""The user's own word on names: which layer stands for which, and which stands alone."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from maam.errors import PortingError
from maam.names import listed
from maam.porting.half import Layer


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
