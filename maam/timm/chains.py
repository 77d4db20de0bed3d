"""The layers of a container as one chain."""

from __future__ import annotations

from typing import Any

from torch import nn


def chain(container: Any, path: str, opened: frozenset[str]) -> list[tuple[str, nn.Module]]:
    """(canonical path, module) of a container's layers in running order, with those of `opened` ones in their place."""
    found: list[tuple[str, nn.Module]] = []
    for name in container.names:
        below = f"{path}.{name}" if path else name
        module = container._modules[name]
        found += chain(module, below, opened) if below in opened else [(below, module)]
    return found


def truncate(container: Any, path: str) -> None:
    """Take away what comes after the layer at `path`; the specs follow."""
    name, _, rest = path.partition(".")
    container.keep(container.names[: container.names.index(name) + 1])
    if rest:
        truncate(container._modules[name], rest)


def pattern(path: str) -> str:
    """A regular expression for the beginning of the names below a path."""
    return path.replace(".", r"\.") + r"\."
