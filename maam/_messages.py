"""Canonical parameter names: the prefixes that wrappers put before them, taken off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")

WRAPPER_PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel, DistributedDataParallel and torch.compile put before every name, in any order and number."""

_LONGEST = 200


def strip_prefix(name: str) -> str:
    """`name` without the prefixes of wrappers."""
    while name.startswith(WRAPPER_PREFIXES):
        name = name.split(".", 1)[1]
    return name


def strip_prefixes(values: Mapping[str, Value]) -> dict[str, Value]:
    """`values` under names without wrappers' prefixes, key by key."""
    return {strip_prefix(name): value for name, value in values.items()}


def is_batch_counter(name: str) -> bool:
    """Whether `name` is PyTorch's count of a batch norm's training batches, which no other framework has."""
    return name.rpartition(".")[2] == "num_batches_tracked"


def listed(names: Iterable[str]) -> str:
    """`names` for one line of a message; a file can hold names that are empty, endless or have line breaks."""
    return ", ".join(_readable(name) for name in names)


def _readable(name: str) -> str:
    if name and name.isprintable() and len(name) <= _LONGEST:
        return name
    return repr(name if len(name) <= _LONGEST else f"{name[:_LONGEST]}...")
