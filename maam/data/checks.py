"""Checks of arguments that the modules of `maam.data` share."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from maam.errors import DataError


def check_count(name: str, value: Any, minimum: int) -> int:
    """Return `value` as an int; raise `DataError` unless it is an integer of at least `minimum`."""
    try:
        number = operator.index(_refuse_bool(value))
    except TypeError:
        raise DataError(f"{name} is {value!r}; expected an integer of at least {minimum}") from None
    if number < minimum:
        raise DataError(f"{name} is {number}; expected an integer of at least {minimum}")
    return number


def check_number(value: Any) -> float:
    """Return `value` as a float; raise `TypeError` or `ValueError` for text, bools and other types."""
    if isinstance(value, (str, bytes)):
        raise TypeError
    return float(_refuse_bool(value))


def check_fraction(name: str, value: Any) -> float:
    """Return `value` as a float; raise `DataError` unless it is a number in [0, 1]."""
    try:
        number = check_number(value)
    except (TypeError, ValueError):
        raise DataError(f"{name} is {value!r}; expected a number in [0, 1]") from None
    if not 0 <= number <= 1:
        raise DataError(f"{name} is {number}; expected a number in [0, 1]")
    return number


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise `DataError` unless `value` is one of `choices`."""
    if value not in choices:
        raise DataError(f"{name} is {value!r}; expected {' or '.join(map(repr, choices))}")


def check_type(name: str, value: object, expected: type, hint: str) -> None:
    """Raise `DataError` with `hint` unless `value` is an instance of `expected`."""
    if not isinstance(value, expected):
        raise DataError(f"{name}: expected a maam.data.{expected.__name__}, got a {type(value).__name__}; {hint}")


def check_images(images: Any) -> None:
    """Raise `DataError` unless `images` is a uint8 array (N, C, H, W) with C, H and W of at least 1."""
    if not isinstance(images, np.ndarray):
        raise DataError(f"images is a {type(images).__name__}; expected a uint8 numpy array (N, C, H, W)")
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape[1:]:
        raise DataError(f"images is {images.dtype} {images.shape}; expected uint8 (N, C, H, W)")
    _, channels, height, width = images.shape
    if width in (1, 3) and min(channels, height) > 4:
        raise DataError(
            f"images is {images.shape}, which looks like (N, H, W, C); "
            "expected (N, C, H, W): images.transpose(0, 3, 1, 2)"
        )


def _refuse_bool(value: Any) -> Any:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError
    return value
