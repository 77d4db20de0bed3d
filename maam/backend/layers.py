"""What the layer classes of all frameworks share: signatures, names, and framework classes for names."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from maam.errors import ArgumentError, SpecError
from maam.spec import Node

Layer = TypeVar("Layer")
_ELSEWHERE = {
    "reduction": "1 / rd_ratio",
    "ratio": "1 / rd_ratio",
    "reduction_ratio": "1 / rd_ratio",
    "stride": "pool=(1, stride)",
    "dim": "in_channels or channels",
}
"""What other libraries call arguments of our layers."""
_SIZE = (64, 64)
"""A map that every layer of ours takes."""


def training_order(layers: Sequence[Layer], relu: type, max_pool: type) -> list[Layer]:
    """A chain with each max pooling in front of the ReLU before it: the same outputs and gradients, bit for bit.

    The ReLU then has less to do. `relu` and `max_pool` are the framework's classes.
    """
    found = list(layers)
    for index in range(len(found) - 1):
        if type(found[index]) is relu and type(found[index + 1]) is max_pool:
            found[index : index + 2] = found[index + 1], found[index]
    return found


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
        ArgumentError: an argument is unknown, missing or given twice.
        SpecError: a class has no name in the spec.
    """
    try:
        bound = inspect.signature(composite).bind(*args, **kwargs).arguments
    except TypeError as error:
        names = ", ".join(inspect.signature(composite).parameters)
        hint = next((f"; {their} is {ours} here" for their, ours in _ELSEWHERE.items() if their in kwargs), "")
        raise ArgumentError(f"{composite.__name__}: {error}{hint}; its arguments: {names}") from None
    tables = {"act_layer": activations, "gate_layer": activations, "norm_layer": norms}
    return {name: _name_of(name, value, tables[name]) if name in tables else value for name, value in bound.items()}


def _name_of(argument: str, value: Any, table: Mapping[str, type]) -> Any:
    if not isinstance(value, type):
        return value
    for name, cls in table.items():
        if value is cls:
            return name
    offered = ", ".join(name for name in table if name != "softmax")  # which no layer of ours takes
    raise SpecError(f"{argument}: no name for {value.__module__}.{value.__qualname__}; expected one of {offered}")


def layers_in(names: Mapping[str, Any], base: type) -> dict[str, type]:
    """The subclasses of `base` among a module's names, which are then in lower case: what `find_layer` looks in."""
    classes = {name: value for name, value in names.items() if isinstance(value, type) and value is not base}
    return {name.lower(): value for name, value in classes.items() if issubclass(value, base)}


def find_layer(attention: Any, layers: Mapping[str, type], module: type) -> Callable[..., Any]:
    """The layer class of that name; a class, or another function of the channels, is returned as it is.

    Raises:
        SpecError: there is no layer of that name, or `attention` is neither a name nor can be called, or is a `module`
            of the framework, which other blocks cannot share.
    """
    if isinstance(attention, str):
        if (name := attention.lower()) not in layers:
            close = difflib.get_close_matches(name, layers, 1, cutoff=0)[0]
            raise SpecError(f"no layer {attention[:60]!r}; did you mean {close!r}? There are {', '.join(layers)}")
        return layers[name]
    if isinstance(attention, module):
        raise SpecError(
            f"attention: expected a name, a layer class or a function of the channels, got a built "
            f"{type(attention).__name__}: each block needs one of its own; functools.partial(CLASS, ...) sets arguments"
        )
    if not callable(attention):
        raise SpecError(
            "attention: expected a name, a layer class or a function of the channels, got an object of type "
            f"{type(attention).__name__}"
        )
    return attention


def check_keeps_shape(name: str, node: Node, channels: int) -> None:
    """Refuse a layer, by its spec, that gives a map of another shape than it takes; `name` is for the message.

    Raises:
        SpecError: naming both shapes.
    """
    given, found = (channels, *_SIZE), node.output_shape((channels, *_SIZE))
    if found != given:
        raise SpecError(f"attention: {name} turns {given} into {found}; expected a layer that keeps the shape")
