"""Composites: functions with validated arguments that expand into primitives."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, ParamSpec, TypeVar

from pydantic import BeforeValidator, ConfigDict, ValidationError, validate_call

from maam.errors import SpecError
from maam.spec.fields import OddSize, Size, describe
from maam.spec.node import Node

P = ParamSpec("P")
NodeT = TypeVar("NodeT", bound=Node)


def _as_tuple(value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        return (value,)
    if not value:
        raise ValueError("expected at least one value")
    return tuple(value)


Sizes = Annotated[tuple[Size, ...], BeforeValidator(_as_tuple)]
OddSizes = Annotated[tuple[OddSize, ...], BeforeValidator(_as_tuple)]


def composite(function: Callable[P, NodeT]) -> Callable[P, NodeT]:
    """Make `function`, which returns a node built of primitives, check its arguments by their annotations.

    The result raises `SpecError` for an unknown, missing or invalid argument. A backend turns it into a layer
    class with one line: `class SE(Layer, composite=spec.se)`.
    """
    arguments = inspect.signature(function).parameters.values()
    names = [argument.name for argument in arguments if argument.kind is not argument.KEYWORD_ONLY]
    checked = validate_call(config=ConfigDict(arbitrary_types_allowed=True, validate_default=True))(function)

    @functools.wraps(function)
    def expand(*args: P.args, **kwargs: P.kwargs) -> NodeT:
        if len(args) > len(names):
            raise SpecError(f"{function.__name__}: expected at most {len(names)} positional arguments, got {len(args)}")
        if repeated := set(names[: len(args)]) & set(kwargs):
            raise SpecError(f"{function.__name__}: {min(repeated)}: given twice")
        if "self" in kwargs:  # which older versions of pydantic take for their own
            raise SpecError(f"{function.__name__}: self: no such argument")
        try:
            return checked(**dict(zip(names, args, strict=False)), **kwargs)  # type: ignore[arg-type,call-arg]
        except SpecError:
            raise
        except ValidationError as error:
            raise SpecError(f"{function.__name__}: {describe(error)}") from None
        except ValueError as error:
            raise SpecError(f"{function.__name__}: {error}") from None

    return expand


def one_each(name: str, values: tuple[int, ...], count: int, what: str) -> tuple[int, ...]:
    """`values`, or its single value repeated, so that there are `count` of them: one for each `what`."""
    if len(values) == 1:
        return values * count
    if len(values) != count:
        raise SpecError(f"{name}: expected one value, or one for each of {count} {what}, got {len(values)}: {values}")
    return values
