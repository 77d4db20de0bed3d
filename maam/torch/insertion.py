"""Insertion of attention layers into networks of PyTorch: by the names of layers, or at points that a library knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from maam._insertion import Insertion, InsertionPoint, LayerKinds, channels_after, make_layers, matching
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
        >>> list_attention()[:6]
        ['agent', 'bam', 'cbam', 'coord', 'eca', 'ema']
    """
    return sorted(LAYERS)


class Blend(nn.Module):
    """A layer that starts as another one: y = start(x) + gamma * (layer(x) - start(x)), where gamma starts at 0.

    Args:
        layer: a layer that keeps the shape.
        start: the layer to start as. Default: the identity.

    Example:
        >>> import torch
        >>> from maam.torch import SE
        >>> from maam.torch.insertion import Blend
        >>> layer, x = Blend(SE(8)), torch.rand(2, 8, 4, 4)
        >>> torch.equal(layer(x), x)
        True
    """

    def __init__(self, layer: nn.Module, start: nn.Module | None = None) -> None:
        super().__init__()
        self.start = nn.Identity() if start is None else start
        self.layer = layer
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of x."""
        first = self.start(x)
        return cast(Tensor, first + self.gamma * (self.layer(x) - first))


def insert_attention(
    network: nn.Module,
    attention: str | MakeLayer,
    where: str | Sequence[str],
    *,
    identity_init: bool = False,
) -> nn.Module:
    """Insert an attention layer after layers of any network, in place.

    The new layer becomes the child `attention` of the layer that it follows, and a forward hook applies it to the
    output. The other parameters keep their names and values, so checkpoints of the plain network load with
    `strict=False`. A layer that was inserted before is replaced.

    Args:
        network: any network.
        attention: the name of a layer, such as "eca" (`maam.torch.insertion.list_attention` returns all names); a
            subclass of `maam.torch.layers.Layer`; or a function from the number of channels to a module that keeps the
            shape (N, channels, H, W), such as `functools.partial(MAFC, rd_ratio=1 / 8)`.
        where: the names of the layers, as `named_modules()` lists them: a shell wildcard such as "layer*.*.bn2", in
            which `*` also matches dots, or a list of wildcards. The output of each layer is a map, whose channels are
            those of its last convolution or batch norm.
        identity_init: whether the network computes the same as before until it is trained: y = x + gamma *
            (attention(x) - x), where gamma is learnable and starts at 0, and x stands for the output of the layer that
            is replaced, if there is one. For pretrained networks. Default: False.

    Returns:
        The network.

    Raises:
        SpecError: no layer of the network matches, the number of its channels is unknown, no attention layer has that
            name, or `attention` returns an object that is not a module or changes the shape. The network is then
            unchanged.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from maam.torch import insert_attention
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> network = insert_attention(network, "coord", where="1")
        >>> type(network[1].attention).__name__, network(torch.rand(2, 3, 8, 8)).shape
        ('CoordAttention', torch.Size([2, 8, 6, 6]))
    """
    insert_layers(network, [], Insertion(attention, identity_init=identity_init, where=where), "")
    return network


def insert_layers(network: nn.Module, points: Sequence[InsertionPoint], insertion: Insertion, known: str) -> None:
    """Insert new layers with the device and dtype of the first parameter of the network.

    See `maam._insertion.make_layers` for the arguments and errors. After an error the network is unchanged.
    """
    if insertion.where is not None:
        points = list(_points_after(network, insertion.where))
    made = make_layers(network, points, insertion, KINDS, known)
    like = next(network.parameters())
    for point, layer in made:
        if point.added_in_place and isinstance(layer, Layer) and _ends_in_activation(layer.spec):
            layer = Copied(layer)
        point.put(layer.to(device=like.device, dtype=like.dtype).train(network.training))


KINDS = LayerKinds(LAYERS, Layer, nn.Module, "module", Blend)


def _points_after(network: nn.Module, where: str | Sequence[str]) -> Iterator[InsertionPoint]:
    """Yield the points after the layers whose names match; the layers of inserted attention do not match."""
    modules = dict(network.named_modules())
    attended = [f"{name}.attention" for name, module in modules.items() if _apply in module._forward_hooks.values()]
    names = [name for name in modules if not any(name == one or name.startswith(f"{one}.") for one in attended)]
    for name in matching(names, where, network):
        module = modules[name]
        inside = [one for inner, one in module.named_modules() if not inner.startswith("attention")]
        yield InsertionPoint(
            channels_after(name, inside), getattr(module, "attention", None), partial(attach, module), True
        )


def attach(module: nn.Module, layer: nn.Module) -> None:
    """Apply a layer to the output of a module, as its child `attention`; another one is replaced."""
    module.attention = layer
    if _apply not in module._forward_hooks.values():
        module.register_forward_hook(_apply)


def _apply(module: Any, inputs: Any, output: Tensor) -> Tensor:
    """Forward hook: return the attended output."""
    return cast(Tensor, module.attention(output))


def _ends_in_activation(node: Node) -> bool:
    while type(node) is Sequential:
        node = list(node.nodes.values())[-1]
    return isinstance(node, Activation)
