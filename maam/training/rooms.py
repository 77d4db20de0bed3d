"""The rooms that train, found by the framework's name."""

from __future__ import annotations

import importlib
from typing import Any

from maam.errors import SpecError, require

FRAMEWORKS = ("torch", "mindspore")
REFERENCE = "reference"
"""Evaluates, and does not train."""


def check_framework(framework: str, known: tuple[str, ...] = FRAMEWORKS) -> None:
    """Refuse a name that is not among the `known`.

    Raises:
        SpecError: it is not.
    """
    if framework not in known:
        hint = "; the reference evaluates alone" if framework == REFERENCE else ""
        raise SpecError(f"framework: expected one of {', '.join(known)}, got {framework[:60]!r}{hint}")


def find_room(framework: str) -> Any:
    """The `devices` module of a framework's room: what selects a device, and makes runners on it.

    Raises:
        SpecError: the framework's name is unknown.
        MissingFrameworkError: it is not installed.
    """
    check_framework(framework)
    require(framework, framework)
    return importlib.import_module(f"maam.{framework}.devices")
