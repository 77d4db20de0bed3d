"""Insertion of attention layers into the networks of timm and torchvision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from torch import Tensor, nn

from maam._insertion import InsertionPoint, LayerKinds, make_layers
from maam.backend.layers import layers_in
from maam.spec import Activation, Node, Sequential
from maam.torch import layers
from maam.torch.layers import Layer

MakeLayer = Callable[[int], nn.Module]
"""A function from a number of channels to a module."""
LAYERS = layers_in(vars(layers), Layer)
"""The drop-in layer classes by name."""


class Copied(nn.Module):
    """Wrapper that returns a copy of a layer's output.

    The network adds to the output in place, but the backward pass of the activation needs the original values.

    Args:
        layer: a layer that ends in an activation.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Return a copy of the output of the layer."""
        return cast(Tensor, self.layer(x)).clone()


def list_attention() -> list[str]:
    """Return the names of the layers that `insert_attention` accepts.

    Example:
        >>> from maam.torch.insertion import list_attention
        >>> list_attention()
        ['cbam', 'maam', 'maf', 'mafb', 'mafc', 'se']
    """
    return sorted(LAYERS)


def insert_layers(
    network: nn.Module, points: Sequence[InsertionPoint], attention: str | MakeLayer, every_block: bool, known: str
) -> None:
    """Insert new layers with the device and dtype of the first parameter of the network.

    See `maam._insertion.make_layers` for the arguments and errors. After an error the network is unchanged.
    """
    made = make_layers(network, points, attention, every_block, LayerKinds(LAYERS, Layer, nn.Module, "module"), known)
    like = next(network.parameters())
    for point, layer in made:
        if point.added_in_place and isinstance(layer, Layer) and _ends_in_activation(layer.spec):
            layer = Copied(layer)
        point.put(layer.to(device=like.device, dtype=like.dtype).train(network.training))


def _ends_in_activation(node: Node) -> bool:
    while type(node) is Sequential:
        node = list(node.nodes.values())[-1]
    return isinstance(node, Activation)
