"""The processes that train together."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]


class World(Protocol):
    """One process's view of all of them; each room makes it with its framework's own engine."""

    rank: int
    size: int

    def barrier(self) -> None:
        """Wait until all processes are here."""

    def gather(self, array: Array) -> Array:
        """The arrays (N, ...) of all processes, whose N may differ, one after the other along the first axis."""


class Alone:
    """The world of a single process."""

    rank, size = 0, 1

    def barrier(self) -> None:
        """Go on."""

    def gather(self, array: Array) -> Array:
        """The array itself."""
        return array
