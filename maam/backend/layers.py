"""What the layer classes of all frameworks share: signatures, docstrings, arguments, and lookup by name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar, Union

from maam._messages import suggestion
from maam.errors import ArgumentError, SpecError
from maam.spec import Node
from maam.spec.composites import plain_signature

LayerT = TypeVar("LayerT")
CLASS_ARGUMENTS = ("act_layer", "gate_layer", "norm_layer")
"""The arguments that also accept a class of the framework."""
_TRANSLATIONS = {
    "reduction": "rd_ratio = 1 / reduction",
    "ratio": "rd_ratio = 1 / ratio",
    "reduction_ratio": "rd_ratio = 1 / reduction_ratio",
    "stride": "pool=(1, stride)",
    "dim": "in_channels or channels",
}
"""Arguments of other libraries, each with the corresponding argument of maam."""
_MAP_SIZE = (64, 64)
"""The size of a map that every layer of maam accepts."""


class CompositeLayer:
    """Base of the layer classes: `class SE(Layer, composite=spec.se)` defines the layer of a composite.

    The class has the signature and the docstring of the composite, with the example from the docstring of the class.

    Attributes:
        composite: the function that returns the spec of a layer.
        arguments: the arguments that a layer was created with, by name.
    """

    composite: ClassVar[Callable[..., Node]]
    arguments: dict[str, Any]
    __signature__: ClassVar[inspect.Signature | None]
    _module_class: ClassVar[type] = object
    _own_parameters: ClassVar[tuple[inspect.Parameter, ...]] = ()

    def __init_subclass__(cls, composite: Callable[..., Node] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if composite is not None:
            cls.composite = staticmethod(composite)
            cls.__signature__ = layer_signature(composite, cls._module_class, cls._own_parameters)
            cls.__doc__ = layer_docstring(composite.__doc__, cls.__dict__.get("__doc__"))
        elif "__init__" in cls.__dict__:
            cls.__signature__ = None  # inspect then reads the subclass's own __init__

    def _describe_arguments(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())


def layer_signature(
    composite: Callable[..., Any], module_class: type, own: Sequence[inspect.Parameter] = ()
) -> inspect.Signature:
    """Return the signature of a layer class.

    Args:
        composite: the composite of the layer.
        module_class: the framework's base class; arguments that name a layer also accept its subclasses.
        own: keyword arguments that the framework adds.
    """
    parameters = []
    for parameter in plain_signature(composite).parameters.values():
        if parameter.name in CLASS_ARGUMENTS and parameter.annotation is not parameter.empty:
            annotation: Any = Union[parameter.annotation, type[module_class]]  # noqa: UP007
            parameter = parameter.replace(annotation=annotation)
        parameters.append(parameter)
    return inspect.Signature([*parameters, *own])


def layer_docstring(composite: str | None, own: str | None) -> str:
    """Return the docstring of a layer class.

    Args:
        composite: the docstring of the composite.
        own: the docstring of the class; its section "Example:" replaces that of the composite.
    """
    text, example = inspect.cleandoc(composite or ""), inspect.cleandoc(own or "").partition("Example:")
    if start := re.match(r"Return (an? |the )?", text):  # a function returns a layer, a class is one
        text = text[start.end() :][:1].upper() + text[start.end() + 1 :]
    if not example[1]:
        return text
    return f"{text.partition('Example:')[0].rstrip()}\n\nExample:{example[2].rstrip()}\n"


def bind_arguments(
    composite: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    activations: Mapping[str, type],
    norms: Mapping[str, type],
) -> dict[str, Any]:
    """Return the arguments of a call by name, with framework classes replaced by their names in the spec.

    Args:
        composite: the function that is called.
        args: the positional arguments.
        kwargs: the keyword arguments.
        activations: the framework's activation classes by name.
        norms: the framework's normalization classes by name.

    Raises:
        ArgumentError: an argument is unknown, missing or given twice.
        SpecError: a class is not one of the given activation and normalization classes.
    """
    try:
        bound = inspect.signature(composite).bind(*args, **kwargs).arguments
    except TypeError as error:
        names = ", ".join(inspect.signature(composite).parameters)
        hint = next((f"; in place of {name} use {ours}" for name, ours in _TRANSLATIONS.items() if name in kwargs), "")
        raise ArgumentError(f"{composite.__name__}: {error}{hint}; arguments: {names}") from None
    tables = dict(zip(CLASS_ARGUMENTS, (activations, activations, norms), strict=True))
    return {name: _name_of(name, value, tables[name]) if name in tables else value for name, value in bound.items()}


def _name_of(argument: str, value: Any, table: Mapping[str, type]) -> Any:
    if not isinstance(value, type):
        kind = type(value)
        if value is not None and not isinstance(value, str) and kind.__module__.split(".")[0] in _packages(table):
            raise SpecError(
                f"{argument}: expected a class or a name, got a built {kind.__qualname__}; pass the class, without "
                f"parentheses: {argument}={kind.__qualname__}"
            )
        return value
    for name, known in table.items():
        if value is known:
            return name
    names = ", ".join(name for name in table if name != "softmax")  # no layer accepts softmax
    raise SpecError(f"{argument}: {value.__module__}.{value.__qualname__} is not supported; expected one of {names}")


def _packages(table: Mapping[str, type]) -> set[str]:
    """Return the top-level packages that define the classes."""
    return {known.__module__.split(".")[0] for known in table.values()}


def layers_in(names: Mapping[str, Any], base: type) -> dict[str, type]:
    """Return the layer classes among the names of a module, subclasses of `base`, by the names of their composites."""
    classes = [value for value in names.values() if isinstance(value, type) and value is not base]
    return {layer.composite.__name__: layer for layer in classes if issubclass(layer, base)}  # type: ignore[attr-defined]


def find_layer(attention: Any, layers: Mapping[str, type], module_class: type) -> Callable[..., Any]:
    """Return the layer class of a name; other functions of the number of channels are returned unchanged.

    Args:
        attention: a name, a layer class, or a function that takes a number of channels and returns a layer.
        layers: the layer classes by the names of their composites.
        module_class: the framework's base class of modules.

    Raises:
        SpecError: no layer has that name, `attention` cannot be called, or it is a built module, which several
            blocks cannot share.
    """
    expected = "attention: expected a name, a layer class or a function of the channels, got"
    if isinstance(attention, str):
        if (name := attention.lower()) not in layers:
            hint = suggestion(name, layers)
            known = f"Known layers: {', '.join(layers)}" if hint else f"known layers: {', '.join(layers)}"
            raise SpecError(f"no layer {attention[:60]!r}; {hint}{' ' if hint else ''}{known}")
        return layers[name]
    if isinstance(attention, module_class):
        raise SpecError(
            f"{expected} a built {type(attention).__name__}; each block needs its own layer: "
            "pass the class, or functools.partial(CLASS, ...) to set arguments"
        )
    if not callable(attention):
        raise SpecError(f"{expected} an object of type {type(attention).__name__}")
    return attention


def check_keeps_shape(name: str, node: Node, channels: int) -> None:
    """Raise SpecError unless the output of a layer has the shape of its input.

    Args:
        name: the layer's name, for the message.
        node: the layer's spec.
        channels: the number of channels of the map.
    """
    given, found = (channels, *_MAP_SIZE), node.output_shape((channels, *_MAP_SIZE))
    if found != given:
        raise SpecError(f"attention: {name} turns {given} into {found}; expected a layer that keeps the shape")


def training_order(layers: Sequence[LayerT], relu: type, max_pool: type) -> list[LayerT]:
    """Return the layers of a chain, with each max pooling moved before the ReLU that precedes it.

    Outputs and gradients stay the same bit for bit, and ReLU has less to compute.

    Args:
        layers: the chain.
        relu: the framework's class of ReLU.
        max_pool: the framework's class of max pooling.
    """
    found = list(layers)
    for index in range(len(found) - 1):
        if type(found[index]) is relu and type(found[index + 1]) is max_pool:
            found[index : index + 2] = found[index + 1], found[index]
    return found
