"""Layers of ours in networks of other MindSpore libraries: the layer that is asked for, and the places for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mindspore import nn

from maam._insertion import Place, choose_places
from maam.backend.layers import check_keeps_shape, find_layer, layers_in
from maam.errors import SpecError
from maam.mindspore import layers
from maam.mindspore.layers import Layer

MakeLayer = Callable[[int], nn.Cell]
LAYERS = layers_in(vars(layers), Layer)
"""The drop-in layers by name."""


def list_attention() -> list[str]:
    """The names of layers that `insert_attention` takes."""
    return sorted(LAYERS)


def fill(network: nn.Cell, places: Sequence[Place], attention: str | MakeLayer, every_block: bool, known: str) -> None:
    """Put a new layer into the occupied places, or into all, where `every_block` is true or none is occupied.

    All parameters that stay keep their names. `known` says for the message what networks have places.

    Raises:
        SpecError: there is no place or no layer of that name, or `attention` makes no cell or one that changes the
            shape; the network is then as it was.
    """
    chosen = choose_places(network, places, every_block, known)
    make = find_layer(attention, LAYERS, nn.Cell)
    made = [_made(make, place.channels, network.training) for place in chosen]
    names = {id(parameter): parameter.name for _, parameter in network.parameters_and_names()}
    for place, layer in zip(chosen, made, strict=True):
        place.put(layer)
    for name, parameter in network.parameters_and_names():
        parameter.name = names.get(id(parameter), name)


def _made(make: MakeLayer, channels: int, training: bool) -> nn.Cell:
    layer = make(channels)
    if not isinstance(layer, nn.Cell):
        raise SpecError(f"attention: expected a function that returns a cell, got a {type(layer).__name__}")
    if isinstance(layer, Layer):
        check_keeps_shape(type(layer).__name__, layer.spec, channels)
    return layer.set_train(training)
