"""Insertion of attention layers into the networks of MindCV."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mindspore import nn

from maam._insertion import InsertionPoint, LayerKinds, make_layers
from maam.backend.layers import layers_in
from maam.mindspore import layers
from maam.mindspore.layers import Layer

MakeLayer = Callable[[int], nn.Cell]
"""A function from a number of channels to a cell."""
LAYERS = layers_in(vars(layers), Layer)
"""The drop-in layer classes by name."""


def list_attention() -> list[str]:
    """Return the names of the layers that `insert_attention` accepts.

    Example:
        >>> from maam.mindspore.insertion import list_attention
        >>> list_attention()
        ['cbam', 'maam', 'maf', 'mafb', 'mafc', 'se']
    """
    return sorted(LAYERS)


def insert_layers(
    network: nn.Cell, points: Sequence[InsertionPoint], attention: str | MakeLayer, every_block: bool, known: str
) -> None:
    """Insert new layers; the other parameters of the network keep their names.

    See `maam._insertion.make_layers` for the arguments and errors. After an error the network is unchanged.
    """
    made = make_layers(network, points, attention, every_block, LayerKinds(LAYERS, Layer, nn.Cell, "cell"), known)
    names = {id(parameter): parameter.name for _, parameter in network.parameters_and_names()}
    for point, layer in made:
        point.put(layer.set_train(network.training))
    for name, parameter in network.parameters_and_names():
        parameter.name = names.get(id(parameter), name)
