"""Canonical parameter names: the prefixes that wrappers put before them, taken off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

Value = TypeVar("Value")

WRAPPER_PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel, DistributedDataParallel and torch.compile put before every name, in any order and number."""


def strip_prefix(name: str) -> str:
    """`name` without the prefixes of wrappers."""
    while name.startswith(WRAPPER_PREFIXES):
        name = name.split(".", 1)[1]
    return name


def strip_prefixes(values: Mapping[str, Value]) -> dict[str, Value]:
    """`values` under names without wrappers' prefixes, key by key."""
    return {strip_prefix(name): value for name, value in values.items()}
