"""What a cell's input must be, checked in Python before a graph is compiled or run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from mindspore import Tensor, nn
from mindspore.common import api
from mindspore.nn.layer.normalization import _BatchNorm

from maam.errors import ShapeError
from maam.mindspore.arrays import unwrap
from maam.spec.inputs import InputRule, check_training_batch


class Constant:
    """An attribute whose value Python computes; a property would be compiled into the graph."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __get__(self, cell: Any, owner: type) -> Any:
        return self if cell is None else self.function(cell)


def check_input(cell: Any, rule: InputRule, x: Any) -> None:
    """Refuse what `cell` cannot take; what is no tensor, but may become one in a graph, passes.

    Raises:
        ShapeError: what was given, and what was expected.
    """
    if isinstance(x, (np.ndarray, list, tuple, type(None))) or type(x).__module__.startswith("torch"):
        raise ShapeError(
            f"expected a mindspore.Tensor {rule.describe()}, got {type(x).__name__}; mindspore.Tensor makes one"
        )
    if not isinstance(x, Tensor):
        return
    rule.check(tuple(x.shape), dtype_name(x.dtype), expected_dtype(cell))
    if cell.training:
        check_training_batch(cell.spec, tuple(x.shape), lambda path: _normalises(cell, path))


def expected_dtype(cell: nn.Cell) -> str | None:
    """The dtype that the input must have; None where mixed precision chooses it, or there is no parameter."""
    return None if is_mixed(cell) or _strategy() is not None else _parameter_dtype(cell)


def is_mixed(cell: nn.Cell) -> bool:
    """Whether mixed precision has been applied to the cell itself."""
    return any(getattr(cell, name, False) for name in ("_amp_level", "fp16", "bf16"))


def dtype_name(dtype: Any) -> str:
    """MindSpore's dtype as NumPy names it."""
    return str(dtype).lower()


def _strategy() -> Any:
    """What mixed precision of level auto does here in PyNative mode; None where it is off."""
    return getattr(api, "get_curr_amp_strategy", lambda: None)()


def _parameter_dtype(cell: nn.Cell) -> str | None:
    for parameter in cell.get_parameters():
        return dtype_name(parameter.dtype)
    return None


def _normalises(cell: nn.Cell, path: str) -> bool:
    """Whether there is a batch norm in train mode, not one over several processes, where the spec has one."""
    for name in path.split("."):
        if (found := cell._cells.get(name)) is None:  # what holds it was replaced
            return False
        cell = unwrap(found)
    return isinstance(cell, _BatchNorm) and not isinstance(cell, nn.SyncBatchNorm) and cell.training
