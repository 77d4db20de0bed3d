"""Whether a cell still is what its spec says, and what its layers may be called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mindspore import nn

from maam.errors import MaamError, SpecError
from maam.mindspore.arrays import unwrap
from maam.weights.conformity import check_conforms, check_method

_SETTINGS = (
    *("in_channels", "out_channels", "kernel_size", "stride", "pad_mode", "padding", "dilation", "group", "has_bias"),
    *("num_features", "eps", "approximate", "function", "axes", "alpha"),
)
"""What a cell computes by; its repr has parameters besides, whose names change when a network takes it in."""


def check_cell(cell: nn.Cell, act: str, error: type[MaamError], skip: Sequence[str] = ()) -> None:
    """Refuse a cell of maam in which a layer was replaced, or its settings were changed; but for those in `skip`.

    Raises:
        error: naming the layer, what it was and what it is.
    """
    check_conforms(cell, _children, words, act, error, skip)


def check_construct(cell: nn.Cell, act: str, error: type[MaamError], *, root: bool = True) -> None:
    """Refuse a cell of maam (with `root`), or one that it holds, whose class is a user's with a construct of its own.

    Raises:
        error: naming the class.
    """
    check_method(cell, _children, "construct", act, error, root=root)


def check_names(names: Iterable[str], container: type[nn.Cell]) -> None:
    """Refuse names of layers that a container has for attributes of its own.

    Raises:
        SpecError: naming the layer.
    """
    plain = nn.SequentialCell()
    for name in names:
        if hasattr(plain, name) or hasattr(container, name):
            raise SpecError(f"layer name {name!r} is an attribute of a MindSpore cell; choose another")


def words(cell: nn.Cell) -> str:
    """What a layer computes by."""
    cell = unwrap(cell)
    settings = [f"{name}={getattr(cell, name)}" for name in _SETTINGS if name in vars(cell)]
    return f"{type(cell).__name__}({', '.join(settings)})"


def _children(cell: nn.Cell) -> Mapping[str, Any]:
    return {name: unwrap(inner) for name, inner in unwrap(cell)._cells.items()}
