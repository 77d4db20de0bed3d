"""Composites: functions with checked arguments that return a node built from primitives."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple, ParamSpec, TypeVar, get_type_hints

from pydantic import BeforeValidator, ConfigDict, GetCoreSchemaHandler, ValidationError, validate_call

from maam.errors import SpecError
from maam.spec.fields import OddSize, Size, describe
from maam.spec.node import Node

P = ParamSpec("P")
NodeT = TypeVar("NodeT", bound=Node)
ItemT = TypeVar("ItemT")


def as_tuple(value: ItemT | Sequence[ItemT]) -> tuple[ItemT, ...]:
    """Return a list as a tuple, and any other value as a tuple of length 1.

    Raises:
        ValueError: the list is empty.
    """
    if not isinstance(value, (list, tuple)):
        return (value,)  # type: ignore[return-value]  # a str or a number is one item
    if not value:
        raise ValueError("expected at least one value")
    return tuple(value)


class CheckedAs(NamedTuple):
    """Metadata of `Annotated`: pydantic checks a value by `annotation` in place of the annotated type."""

    annotation: Any

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return handler(self.annotation)


Sizes = Annotated[int | Sequence[int], CheckedAs(Annotated[tuple[Size, ...], BeforeValidator(as_tuple)])]
"""One size or several, each at least 1; the function receives a tuple."""
OddSizes = Annotated[int | Sequence[int], CheckedAs(Annotated[tuple[OddSize, ...], BeforeValidator(as_tuple)])]
"""The same for odd sizes."""


def composite(function: Callable[P, NodeT]) -> Callable[P, NodeT]:
    """Return `function` with arguments that are checked against their annotations.

    A backend turns a composite into a layer class with one line: `class SE(Layer, composite=spec.se)`.

    Args:
        function: returns a node. Each argument has an annotation that pydantic can check.

    Returns:
        A function with the same arguments. It raises `SpecError` for an unknown, missing or invalid argument.

    Example:
        >>> from maam import spec
        >>> @spec.composite
        ... def conv_relu(in_channels: int, out_channels: int, kernel_size: int = 3) -> spec.Node:
        ...     conv = spec.Conv2d(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size)
        ...     return spec.Sequential(children={"conv": conv, "act": spec.Activation(function="relu")})
        >>> conv_relu(3, 16).output_shape((3, 32, 32))
        (16, 30, 30)
        >>> conv_relu(3, "many")
        Traceback (most recent call last):
            ...
        maam.errors.SpecError: conv_relu: out_channels: input should be a valid integer, ... got 'many'
    """
    arguments = inspect.signature(function).parameters.values()
    names = [argument.name for argument in arguments if argument.kind is not argument.KEYWORD_ONLY]

    @functools.cache  # the first call builds it, because it is slow and most composites are never called
    def validator() -> Callable[..., NodeT]:
        with contextlib.suppress(NameError):  # pydantic looks names up in the module only, not in doctests
            function.__annotations__ = get_type_hints(function, include_extras=True)
        return validate_call(config=_CONFIG)(function)

    @functools.wraps(function)
    def expand(*args: P.args, **kwargs: P.kwargs) -> NodeT:
        if len(args) > len(names):
            raise SpecError(f"{function.__name__}: expected at most {len(names)} positional arguments, got {len(args)}")
        if repeated := set(names[: len(args)]) & set(kwargs):
            raise SpecError(f"{function.__name__}: {min(repeated)}: given by position and by name; pass it once")
        if "self" in kwargs:  # older versions of pydantic would bind it themselves
            raise SpecError(f"{function.__name__}: self: no such argument")
        try:
            return validator()(**dict(zip(names, args, strict=False)), **kwargs)
        except SpecError:
            raise
        except ValidationError as error:
            raise SpecError(f"{function.__name__}: {describe(error)}") from None
        except (ValueError, ArithmeticError) as error:  # such as an extreme number that overflows
            raise SpecError(f"{function.__name__}: {error}") from None

    return expand


_CONFIG = ConfigDict(arbitrary_types_allowed=True, validate_default=True)


def plain_signature(composite: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a composite with plain types, without pydantic's constraints.

    Args:
        composite: a composite, or any other function.

    Returns:
        The signature with resolved annotations: `in_channels: int`, `kernel_sizes: int | Sequence[int]`,
        `fusion: Literal['softmax', 'mean', 'dynamic']`. Annotations that cannot be resolved stay as written.

    Example:
        >>> from maam import spec
        >>> plain_signature(spec.mafc).parameters["gate_layer"]
        <Parameter "gate_layer: Literal['sigmoid', 'hard_sigmoid', 'tanh'] = 'sigmoid'">
    """
    signature = inspect.signature(composite)
    try:
        hints = get_type_hints(composite)
    except (NameError, TypeError):
        return signature
    parameters = [
        argument.replace(annotation=hints.get(argument.name, argument.annotation))
        for argument in signature.parameters.values()
    ]
    return signature.replace(parameters=parameters, return_annotation=hints.get("return", signature.return_annotation))


def one_each(name: str, values: int | Sequence[int], count: int, what: str) -> tuple[int, ...]:
    """Return `count` values: those given, or the single given value repeated.

    Args:
        name: the argument's name, for the message.
        values: one value, or as many as `count`.
        count: the number of values to return.
        what: what each value is for, in the plural, for the message.

    Raises:
        SpecError: the number of values is neither 1 nor `count`.
    """
    values = as_tuple(values)
    if len(values) == 1:
        return values * count
    if len(values) != count:
        raise SpecError(f"{name}: expected one value, or one for each of {count} {what}, got {len(values)}: {values}")
    return values
