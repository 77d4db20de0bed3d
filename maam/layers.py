"""What the layer classes of all frameworks share: signatures, and framework classes for names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from maam.errors import SpecError


def layer_signature(composite: Callable[..., Any], own: Sequence[str]) -> inspect.Signature:
    """The composite's signature, then the framework's `own` keyword arguments, all None by default."""
    parameters = list(inspect.signature(composite).parameters.values())
    extra = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in own]
    return inspect.Signature([*parameters, *extra])


def arguments_of(
    composite: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    activations: Mapping[str, type],
    norms: Mapping[str, type],
) -> dict[str, Any]:
    """The call's arguments by name, with framework classes replaced by the spec's names.

    Raises:
        SpecError: an argument is unknown, missing or given twice, or a class has no name in the spec.
    """
    try:
        bound = inspect.signature(composite).bind(*args, **kwargs).arguments
    except TypeError as error:
        raise SpecError(f"{composite.__name__}: {error}") from None
    tables = {"act_layer": activations, "gate_layer": activations, "norm_layer": norms}
    return {name: _name_of(name, value, tables[name]) if name in tables else value for name, value in bound.items()}


def _name_of(argument: str, value: Any, table: Mapping[str, type]) -> Any:
    if not isinstance(value, type):
        return value
    for name, cls in table.items():
        if value is cls:
            return name
    raise SpecError(
        f"{argument}: no name for {value.__module__}.{value.__qualname__}; expected one of {', '.join(table)}"
    )
