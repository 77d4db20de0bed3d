"""Whether a cell still is what its spec says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mindspore import nn

from maam.errors import MaamError
from maam.mindspore.arrays import unwrap
from maam.weights.conformity import check_conforms

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
    check_conforms(cell, _children, words, act, error, skip, method="construct")


def words(cell: nn.Cell) -> str:
    """What a layer computes by."""
    cell = unwrap(cell)
    settings = [f"{name}={getattr(cell, name)}" for name in _SETTINGS if name in vars(cell)]
    return f"{type(cell).__name__}({', '.join(settings)})"


def _children(cell: nn.Cell) -> Mapping[str, Any]:
    return {name: unwrap(inner) for name, inner in unwrap(cell)._cells.items()}
