"""What a module's input must be, by static metadata alone, so that compilers see through the check."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from maam.errors import ShapeError
from maam.spec.inputs import InputRule, check_training_batch


def check_input(module: Any, rule: InputRule, x: Any) -> None:
    """Refuse what `module` cannot take, in the spec's words.

    Raises:
        ShapeError: what was given, and what was expected.
    """
    if isinstance(x, torch.fx.Proxy):
        return
    if not isinstance(x, Tensor):
        raise ShapeError(
            f"expected a torch.Tensor {rule.describe()}, got {type(x).__name__}; torch.as_tensor makes one"
        )
    own = _parameter_dtype(module)
    expected = None if own != x.dtype and _casts(x) else own
    accepted = rule.accepts(x.shape) and x.is_floating_point() and expected in (None, x.dtype)
    if not accepted:
        rule.check(tuple(x.shape), _name(x.dtype), None if expected is None else _name(expected))
    if module.training and not torch.compiler.is_compiling() and x.shape[0] == 1:
        check_training_batch(module.spec, tuple(x.shape), lambda path: _normalises(module, path))


def _normalises(module: nn.Module, path: str) -> bool:
    """Whether there is a batch norm in train mode, not one over several processes, where the spec has one."""
    try:
        layer = module.get_submodule(path)
    except AttributeError:  # what holds it was replaced
        return False
    return isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm) and layer.training


def _casts(x: Tensor) -> bool:
    """Whether automatic mixed precision is on and converts `x` (it leaves float64 alone)."""
    kind = x.device.type  # the meta device has no such state to ask for
    return x.dtype != torch.float64 and kind != "meta" and torch.is_autocast_enabled(kind)


def _parameter_dtype(module: nn.Module) -> torch.dtype | None:
    for parameter in module.parameters():
        return parameter.dtype
    return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
