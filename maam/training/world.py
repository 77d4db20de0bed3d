"""The processes that train together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from maam.training.protocol import Runner, Trainer

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


def share_statistics(world: World, runner: Runner, trainer: Trainer) -> None:
    """Give all processes the first one's running statistics: each has seen its share of the batches alone."""
    names = [p.name for p in runner.spec.parameters() if not p.trainable]
    if world.size == 1 or not names:
        return
    runner.write_arrays(_of_the_first(world, runner.read_arrays(), names))
    state = trainer.read_state()
    if state.average:
        shared = _of_the_first(world, state.average, names)
        trainer.write_state(replace(state, average=state.average | shared))


def _of_the_first(world: World, arrays: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """The first process's arrays of these names, in all; on the way they are one vector."""
    own = np.concatenate([arrays[name].ravel() for name in names])
    first = world.gather(own)[: own.size]
    ends = np.cumsum([arrays[name].size for name in names])
    parts = np.split(first, ends[:-1])
    return {name: part.reshape(arrays[name].shape) for name, part in zip(names, parts, strict=True)}
