"""Layers of ours in networks of other PyTorch libraries: which layer is asked for, and the places that it can take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from torch import Tensor, nn

from maam._insertion import Place, choose_places
from maam.backend.layers import check_keeps_shape, find_layer, layers_in
from maam.errors import SpecError
from maam.spec import Activation, Node, Sequential
from maam.torch import layers
from maam.torch.layers import Layer

MakeLayer = Callable[[int], nn.Module]
LAYERS = layers_in(vars(layers), Layer)
"""The drop-in layers by name."""


class Copied(nn.Module):
    """The output of `layer`, copied: the network adds to it in place, and an activation needs its own afterwards."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        return cast(Tensor, self.layer(x)).clone()


def list_attention() -> list[str]:
    """The names of layers that `insert_attention` takes."""
    return sorted(LAYERS)


def fill(
    network: nn.Module, places: Sequence[Place], attention: str | MakeLayer, every_block: bool, known: str
) -> None:
    """Put a new layer into the occupied places, or into all, where `every_block` is true or none is occupied.

    The layers get the device and dtype of the network's first parameter. `known` says for the message what networks
    have places.

    Raises:
        SpecError: there is no place or no layer of that name, or `attention` makes no module or one that changes
            the shape; the network is then as it was.
    """
    chosen = choose_places(network, places, every_block, known)
    make = find_layer(attention, LAYERS, nn.Module)
    for place, layer in [(place, _made(make, place, network)) for place in chosen]:
        place.put(layer)


def _made(make: MakeLayer, place: Place, network: nn.Module) -> nn.Module:
    layer = make(place.channels)
    if not isinstance(layer, nn.Module):
        raise SpecError(f"attention: expected a function that returns a module, got a {type(layer).__name__}")
    if isinstance(layer, Layer):
        check_keeps_shape(type(layer).__name__, layer.spec, place.channels)
        layer = Copied(layer) if place.added_to and _ends_in_activation(layer.spec) else layer
    like = next(network.parameters())
    return layer.to(device=like.device, dtype=like.dtype).train(network.training)


def _ends_in_activation(node: Node) -> bool:
    while type(node) is Sequential:
        node = list(node.nodes.values())[-1]
    return isinstance(node, Activation)
