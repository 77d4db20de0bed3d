"""Field types of specs, and the messages for invalid values."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Annotated, Any, NoReturn

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_core import ErrorDetails

from maam._messages import shortened

Shape = tuple[int, ...]
"""The shape of a sample without batch: (C, H, W) for a feature map, (features,) for a vector."""

MAX_SIZE = 2**24


def plain_integer(value: Any) -> Any:
    """Return an integer of NumPy or a framework as a Python int, for JSON; return other values unchanged."""
    if isinstance(value, int) or "bool" in str(getattr(value, "dtype", "")):
        return value
    try:
        return operator.index(value)
    except (TypeError, ValueError):
        return value


def plain_number(value: Any) -> Any:
    """Return a NumPy scalar as a Python one; return other values unchanged."""
    return value.item() if isinstance(value, np.generic) else value


def _ordered(value: Any) -> Any:
    """Return a list or tuple; pydantic also accepts sets as tuples, but their order varies."""
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"expected a list or a tuple, got {shortened(value)}")
    return value


AsInteger = BeforeValidator(plain_integer)
AsNumber = BeforeValidator(plain_number)
Ordered = BeforeValidator(_ordered)

Size = Annotated[int, Field(strict=True, ge=1, le=MAX_SIZE), AsInteger]
NonNegative = Annotated[int, Field(strict=True, ge=0, le=MAX_SIZE), AsInteger]
Flag = Annotated[bool, Field(strict=True), AsNumber]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False), AsNumber]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False), AsNumber]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False), AsNumber]
Probability = Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False), AsNumber]


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError(f"expected an odd kernel size, got {value}")
    return value


OddSize = Annotated[Size, AfterValidator(_odd)]


class FrozenDict(dict[str, Any]):
    """Immutable, hashable dict; dicts with another order are not equal, because children run in this order."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a spec cannot be changed; use replace() to make another one")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and list(self.items()) == list(other.items())

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


_KINDS = {"tuple_type": 'a list, such as ["a", "b"]', "dict_type": "a table, such as {name = 1}"}
"""What pydantic calls a tuple and a dictionary, in the words of a recipe or a document."""


def _sentences(error: ValidationError) -> Iterator[str]:
    for detail in error.errors(include_url=False):
        yield _sentence(detail)


def _sentence(detail: ErrorDetails) -> str:
    where = ".".join(_part(part) for part in detail["loc"] if part != "[key]")  # pydantic's mark for a wrong key
    if detail["type"] == "extra_forbidden":
        return f"{where}: no such field"
    if detail["type"] == "unexpected_keyword_argument":
        return f"{where}: no such argument"
    if detail["type"].startswith("missing"):
        return f"{where}: required, but not given"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] in _KINDS:
        message = f"Expected {_KINDS[detail['type']]}"
    if detail["type"] != "value_error":
        message = f"{message[0].lower()}{message[1:]}, got {shortened(detail['input'])}"
    return f"{where}: {message}" if where else message


def _part(part: int | str) -> str:
    """Return a part of a path; names that are not short identifiers are quoted."""
    return str(part) if isinstance(part, int) or (part.isidentifier() and len(part) <= 60) else shortened(part)


def describe(error: ValidationError) -> str:
    """Return the messages of an error in one line of at most 500 characters, each with the path of its field."""
    text = "; ".join(_sentences(error))
    return text if len(text) <= 500 else f"{text[:200]} ... {text[-290:]}"
