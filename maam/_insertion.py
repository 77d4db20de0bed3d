"""Insertion of attention layers into the networks of timm, torchvision and MindCV, independent of the framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from maam.backend.layers import check_keeps_shape, find_layer
from maam.errors import SpecError


class InsertionPoint(NamedTuple):
    """A point of a block at which a layer can be inserted.

    Attributes:
        channels: the number of channels of the map at this point.
        occupied: whether a layer is already there; a new one replaces it.
        put: a function that inserts a layer here.
        added_in_place: whether the network adds to the output of the layer in place, as ResNets in PyTorch do.
    """

    channels: int
    occupied: bool
    put: Callable[[Any], None]
    added_in_place: bool = False


class LayerKinds(NamedTuple):
    """The layers of one framework.

    Attributes:
        by_name: the drop-in layer classes by lower-case name.
        base: their base class, whose objects have a `spec`.
        module: the framework's class of all modules.
        noun: the framework's word for a module, for error messages.
    """

    by_name: Mapping[str, type]
    base: type
    module: type
    noun: str


def check_network(network: object, module: type, name: str) -> None:
    """Raise `SpecError` unless a network is an object of the class `module` with this `name`."""
    if not isinstance(network, module):
        raise SpecError(
            f"insert_attention: expected a {name}, got an object of type {type(network).__name__}; create_model(NAME, "
            "attention=...) builds a network by its name"
        )


def make_layers(
    network: object, points: Sequence[InsertionPoint], attention: Any, every_block: bool, kinds: LayerKinds, known: str
) -> list[tuple[InsertionPoint, Any]]:
    """Make a layer for each insertion point; the network is not changed.

    Args:
        network: the network that has the points, for error messages.
        points: all insertion points of the network.
        attention: a name, a layer class, or a function from a number of channels to a module.
        every_block: whether to use all points. False: if any point is occupied, only occupied points are used.
        kinds: the layers of the framework.
        known: the networks that have insertion points, for error messages.

    Returns:
        The points in use, each with its layer.

    Raises:
        SpecError: `points` is empty, no layer has the name `attention`, or the function `attention` returns an object
            that is not a module or a layer that changes the shape.
    """
    if not points:
        raise SpecError(f"{type(network).__name__}: found no block for an attention layer; expected {known}")
    occupied = [point for point in points if point.occupied]
    chosen = occupied if occupied and not every_block else points
    make = find_layer(attention, kinds.by_name, kinds.module)
    made = []
    for point in chosen:
        layer = make(point.channels)
        if not isinstance(layer, kinds.module):
            raise SpecError(
                f"attention: expected a function that returns a {kinds.noun}, got one that returns a "
                f"{type(layer).__name__}"
            )
        if isinstance(layer, kinds.base):
            check_keeps_shape(type(layer).__name__, layer.spec, point.channels)  # type: ignore[attr-defined]
        made.append((point, layer))
    return made
