"""Places for layers of ours in the networks of other libraries: what both frameworks' rooms know of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from maam.errors import SpecError


class Place(NamedTuple):
    """A place for a layer in a block.

    Attributes:
        channels: of the map there.
        occupied: whether attention stands there already, which a new layer replaces.
        put: what puts a layer there.
        added_to: whether the network adds to the layer's output in place, as PyTorch's do.
    """

    channels: int
    occupied: bool
    put: Callable[[Any], None]
    added_to: bool = False


def choose_places(network: object, places: Sequence[Place], every_block: bool, known: str) -> Sequence[Place]:
    """The occupied places, or all, where `every_block` is true or none is occupied.

    `known` says for the message what networks have places.

    Raises:
        SpecError: there is none.
    """
    if not places:
        raise SpecError(f"{type(network).__name__}: no block to put attention into; expected {known}")
    occupied = [place for place in places if place.occupied]
    return occupied if occupied and not every_block else places
