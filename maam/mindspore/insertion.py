"""Insertion of attention layers into networks of MindSpore: by the names of cells, or at points that MindCV has."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from mindspore import PYNATIVE_MODE, Parameter, Tensor, get_context, nn, set_context
from mindspore.common.initializer import initializer

from maam._insertion import Insertion, InsertionPoint, LayerKinds, channels_after, make_layers, matching
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
        >>> list_attention()[:6]
        ['agent', 'bam', 'cbam', 'coord', 'eca', 'ema']
    """
    return sorted(LAYERS)


class Blend(nn.Cell):
    """A layer that starts as another one: y = start(x) + gamma * (layer(x) - start(x)), where gamma starts at 0.

    Args:
        layer: a layer that keeps the shape.
        start: the layer to start as. Default: the identity.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import SE
        >>> from maam.mindspore.insertion import Blend
        >>> layer, x = Blend(SE(8)), ops.ones((2, 8, 4, 4))
        >>> bool((layer(x) == x).all())
        True
    """

    def __init__(self, layer: nn.Cell, start: nn.Cell | None = None) -> None:
        super().__init__()
        self.start = nn.Identity() if start is None else start
        self.layer = layer
        self.gamma = Parameter(initializer("zeros", (1,)), name="gamma")

    def construct(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of x."""
        first = self.start(x)
        return first + self.gamma * (self.layer(x) - first)


def insert_attention(
    network: nn.Cell,
    attention: str | MakeLayer,
    where: str | Sequence[str],
    *,
    identity_init: bool = False,
) -> nn.Cell:
    """Insert an attention layer after cells of any network, in place.

    Each cell is replaced by a chain of the cell and the new layer. The other parameters keep their names and values.
    A layer that was inserted before is replaced. Call this function before the first run of the network in graph mode.

    Args:
        network: any network.
        attention: the name of a layer, such as "eca" (`maam.mindspore.insertion.list_attention` returns all names); a
            subclass of `maam.mindspore.layers.Layer`; or a function from the number of channels to a cell that keeps
            the shape (N, channels, H, W), such as `functools.partial(MAFC, rd_ratio=1 / 8)`.
        where: the names of the cells, as `cells_and_names()` lists them: a shell wildcard such as "layer*.*.bn2", in
            which `*` also matches dots, or a list of wildcards. The output of each cell is a map, whose channels are
            those of its last convolution or batch norm.
        identity_init: whether the network computes the same as before until it is trained: y = x + gamma *
            (attention(x) - x), where gamma is learnable and starts at 0, and x stands for the output of the layer that
            is replaced, if there is one. For pretrained networks. Default: False.

    Returns:
        The network.

    Raises:
        SpecError: no cell of the network matches, the number of its channels is unknown, no attention layer has that
            name, or `attention` returns an object that is not a cell or changes the shape. The network is then
            unchanged.

    Example:
        >>> from mindspore import nn, ops
        >>> from maam.mindspore import insert_attention
        >>> network = nn.SequentialCell(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> network = insert_attention(network, "coord", where="1")
        >>> type(network[1].attention).__name__, network(ops.ones((2, 3, 8, 8))).shape
        ('CoordAttention', (2, 8, 8, 8))
    """
    insert_layers(network, [], Insertion(attention, identity_init=identity_init, where=where), "")
    return network


def insert_layers(network: nn.Cell, points: Sequence[InsertionPoint], insertion: Insertion, known: str) -> None:
    """Insert new layers; the other parameters of the network keep their names.

    See `maam._insertion.make_layers` for the arguments and errors. After an error the network is unchanged.
    """
    if insertion.where is not None:
        points = list(_points_after(network, insertion.where))
    made = make_layers(network, points, insertion, KINDS, known)
    names = {id(parameter): parameter.name for _, parameter in network.parameters_and_names()}
    for point, layer in made:
        point.put(layer.set_train(network.training))
    for name, parameter in network.parameters_and_names():
        parameter.name = names.get(id(parameter), name)


def compute_shape(layer: nn.Cell, channels: int) -> tuple[int, ...]:
    """Return the shape of the output of a new cell for a map (2, channels, 8, 8), in eval mode.

    The cell runs in PyNative mode, so that nothing is compiled.
    """
    mode = get_context("mode")
    set_context(mode=PYNATIVE_MODE)
    try:
        values = np.random.default_rng(0).standard_normal((2, channels, 8, 8), np.float32)
        return tuple(layer.set_train(False)(Tensor(values)).shape)
    finally:
        set_context(mode=mode)


KINDS = LayerKinds(LAYERS, Layer, nn.Cell, "cell", Blend, compute_shape)


class Attended(nn.SequentialCell):
    """A cell of a network and the attention layer after it, under the names "last" and "attention"."""

    def __init__(self, last: nn.Cell, attention: nn.Cell) -> None:
        super().__init__(OrderedDict(last=last, attention=attention))


def _points_after(network: nn.Cell, where: str | Sequence[str]) -> Iterator[InsertionPoint]:
    """Yield the points after the cells whose names match; the cells of an inserted chain do not match."""
    cells = dict(network.cells_and_names())
    chains = tuple(f"{name}." for name, cell in cells.items() if isinstance(cell, Attended))
    for name in matching([name for name in cells if not name.startswith(chains)], where, network):
        cell = cells[name]
        last, current = (cell[0], cell[1]) if isinstance(cell, Attended) else (cell, None)
        channels = channels_after(name, [inner for _, inner in last.cells_and_names()])
        parent, _, local = name.rpartition(".")
        yield InsertionPoint(channels, current, partial(_attach, cells[parent], local, last))


def _attach(parent: Any, name: str, last: nn.Cell, layer: nn.Cell) -> None:
    """Replace the child `name` of a cell by the chain of it and a layer."""
    chain = Attended(last, layer)
    if isinstance(parent, (nn.SequentialCell, nn.CellList)):
        parent[list(parent._cells).index(name)] = chain
    else:
        setattr(parent, name, chain)
