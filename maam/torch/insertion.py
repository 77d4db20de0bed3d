"""Insertion of attention layers into networks of PyTorch: by the names of layers, or at points that a library knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from maam._insertion import (
    Insertion,
    InsertionPoint,
    LayerKinds,
    channels_after,
    check_is_free,
    check_network,
    inside,
    make_layers,
    matching,
)
from maam.backend.layers import layers_in
from maam.errors import SpecError
from maam.spec import Activation, Node, Sequential
from maam.torch import layers
from maam.torch.arrays import preserve_modes
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
    `strict=False`. A layer that was inserted there before is replaced. If the name of an `nn.Sequential` matches, the
    new layer becomes the child of its last layer. Insert layers before `torch.compile`, and after convolutions and
    batch norms are fused.

    Args:
        network: any network.
        attention: the name of a layer, such as "eca" (`maam.torch.insertion.list_attention` returns all names); a
            subclass of `maam.torch.layers.Layer`; or a function from the number of channels to a module that keeps the
            shape (N, channels, H, W), such as `functools.partial(MAFC, rd_ratio=1 / 8)`.
        where: the names of the layers, as `named_modules()` lists them: a shell wildcard such as "layer*.*.bn2", in
            which `*` also matches dots, or a list of wildcards. Each layer must return a map; its last convolution or
            batch norm determines the number of channels. Layers of maam, and the layers inside them, are refused.
        identity_init: whether the network computes the same as before until it is trained: y = x + gamma *
            (attention(x) - x), where gamma is learnable and starts at 0. If the layer replaces another one, x is the
            output of the old layer. Use it for pretrained networks. Default: False.

    Returns:
        The network.

    Raises:
        SpecError: no layer of the network matches, or the network is compiled; a layer that matches belongs to a layer
            or model of maam, is a list of layers, has an unknown number of channels or an attribute `attention`; no
            attention layer has that name; or `attention` returns an object that is not a module or changes the shape.
            The network is then unchanged.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from maam.torch import insert_attention
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> network = insert_attention(network, "coord", where="1")
        >>> type(network[1].attention).__name__, network(torch.rand(2, 3, 8, 8)).shape
        ('CoordAttention', torch.Size([2, 8, 6, 6]))
    """
    points = list(_points_after(network, where))
    insert_layers(network, points, Insertion(attention, every_block=True, identity_init=identity_init), "")
    return network


def insert_layers(network: nn.Module, points: Sequence[InsertionPoint], insertion: Insertion, known: str) -> None:
    """Insert new layers with the device and dtype of the first parameter of the network.

    See `maam._insertion.make_layers` for the arguments and errors. After an error the network is unchanged.
    """
    if insertion.where is not None:
        points = list(_points_after(network, insertion.where))
    made = make_layers(network, points, insertion, KINDS, known)
    like = next((one for one in network.parameters() if one.is_floating_point()), torch.empty(0))
    for point, layer in made:
        if point.added_in_place and isinstance(layer, Layer) and _ends_in_activation(layer.spec):
            layer = Copied(layer)
        point.put(layer.to(device=like.device, dtype=like.dtype).train(network.training))


def _compute(layer: nn.Module, channels: int) -> tuple[int, ...]:
    """Return the shape of the output of a layer for a map (2, channels, 8, 8), in eval mode."""
    like = next((one for one in layer.parameters() if one.is_floating_point()), torch.empty(0))
    with torch.no_grad(), preserve_modes(layer):
        return tuple(layer.eval()(torch.ones(2, channels, 8, 8, dtype=like.dtype, device=like.device)).shape)


KINDS = LayerKinds(LAYERS, Layer, nn.Module, "module", Blend, _compute)


def _points_after(network: nn.Module, where: str | Sequence[str]) -> Iterator[InsertionPoint]:
    """Yield the points after the layers whose names match; the layers of inserted attention do not match."""
    check_network(network, nn.Module, "torch.nn.Module")
    if isinstance(network, torch.jit.ScriptModule) or hasattr(network, "_orig_mod"):  # of torch.compile
        raise SpecError(
            f"insert_attention: expected a network that is not compiled, got a {type(network).__name__}; insert the "
            "layers first, then compile"
        )
    modules = dict(network.named_modules(remove_duplicate=False))
    attended = [f"{name}.attention" for name, module in modules.items() if _is_attended(module)]
    added = {*attended, *inside(modules, attended)}
    found: dict[nn.Module, str] = {}
    for name in matching([name for name in modules if name not in added], where, network):
        place, module = _last_called(name, modules[name])
        for one in (name, place):
            _check_place(one, modules)
        if place != name and sum(one is module for one in modules.values()) > 1:
            raise SpecError(f"where: the last layer of {name!r} is used in several places; match the layer before it")
        found.setdefault(module, name)
    for module, name in found.items():
        current = module.attention if _is_attended(module) else None
        channels = channels_after(name, modules[name], _layers_inside)
        yield InsertionPoint(channels, current, partial(attach, module), True)


def _is_attended(module: nn.Module) -> bool:
    return _apply in module._forward_hooks.values()


def _last_called(name: str, module: nn.Module) -> tuple[str, nn.Module]:
    """Return the layer that computes the output of a chain: the chain would also call a child `attention` itself."""
    while type(module).forward is nn.Sequential.forward and len(module._modules):
        last, child = list(module._modules.items())[-1]
        name, module = f"{name}.{last}", cast(nn.Module, child)
    return name, module


def _check_place(name: str, modules: Mapping[str, nn.Module]) -> None:
    """Raise `SpecError` if a layer cannot get a child `attention`."""
    module, parts, reason = modules[name], name.split("."), ""
    check_is_free(name, (modules[".".join(parts[:count])] for count in range(len(parts) + 1)))
    if type(module).forward is nn.Sequential.forward:
        reason = "" if module._modules else "is empty; match a layer with a convolution or batch norm"
    elif isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        reason = "is a list of layers, which would contain the new one; match a layer inside it"
    elif hasattr(module, "attention") and not _is_attended(module):
        reason = "has an attribute attention of its own; match a layer inside it"
    if reason:
        raise SpecError(f"where: {name!r} {reason}")


def _layers_inside(module: nn.Module) -> list[nn.Module]:
    """Return the children of a module, without inserted attention."""
    inserted = module.attention if _is_attended(module) else None
    return [child for child in module.children() if child is not inserted]


def attach(module: nn.Module, layer: nn.Module) -> None:
    """Apply a layer to the output of a module, as its child `attention`; another one is replaced."""
    module.attention = layer
    if not _is_attended(module):
        module.register_forward_hook(_apply, prepend=True)  # so that other hooks get the attended output


def _apply(module: Any, inputs: Any, output: Tensor) -> Tensor:
    """Forward hook: return the attended output."""
    return cast(Tensor, module.attention(output))


def _ends_in_activation(node: Node) -> bool:
    while type(node) is Sequential:
        node = list(node.nodes.values())[-1]
    return isinstance(node, Activation)
