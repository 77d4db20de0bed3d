"""Insertion of attention layers into networks of MindSpore: by the names of cells, or at points that MindCV has."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from mindspore import PYNATIVE_MODE, Parameter, Tensor, amp, nn
from mindspore import dtype as mstype
from mindspore.common.initializer import initializer

from maam._insertion import (
    Insertion,
    InsertionPoint,
    LayerKinds,
    channels_after,
    check_is_free,
    check_network,
    make_layers,
    matching,
)
from maam.backend.layers import layers_in
from maam.errors import SpecError
from maam.mindspore import layers
from maam.mindspore.cells import Container
from maam.mindspore.configuration import preserve_mode
from maam.mindspore.layers import Layer
from maam.mindspore.primitives import convert
from maam.spec.node import is_within

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
    The new layer has the dtype and the mixed precision of the network. A layer that was inserted before is replaced.
    Call this function before the first run of the network in graph mode.

    Args:
        network: any network.
        attention: the name of a layer, such as "eca" (`maam.mindspore.insertion.list_attention` returns all names); a
            subclass of `maam.mindspore.layers.Layer`; or a function from the number of channels to a cell that keeps
            the shape (N, channels, H, W), such as `functools.partial(MAFC, rd_ratio=1 / 8)`.
        where: the names of the cells, as `cells_and_names()` lists them: a shell wildcard such as "layer*.*.bn2", in
            which `*` also matches dots, or a list of wildcards. Each cell must return a map; its last convolution or
            batch norm determines the number of channels. The cells inside a layer or model of maam are refused.
        identity_init: whether the network computes the same as before until it is trained: y = x + gamma *
            (attention(x) - x), where gamma is learnable and starts at 0. If the layer replaces another one, x is the
            output of the old layer. Use it for pretrained networks. Default: False.

    Returns:
        The network.

    Raises:
        SpecError: no cell of the network matches; a cell that matches is inside a layer or model of maam, is a list of
            cells, or has an unknown number of channels; no attention layer has that name; or `attention` returns an
            object that is not a cell or changes the shape. The network is then unchanged.

    Example:
        >>> from mindspore import nn, ops
        >>> from maam.mindspore import insert_attention
        >>> network = nn.SequentialCell(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        >>> network = insert_attention(network, "coord", where="1")
        >>> type(network[1].attention).__name__, network(ops.ones((2, 3, 8, 8))).shape
        ('CoordAttention', (2, 8, 8, 8))
    """
    check_network(network, nn.Cell, "mindspore.nn.Cell")
    points = list(points_after(network, where))
    insert_layers(network, points, Insertion(attention, identity_init=identity_init, where=where), "")
    return network


class Attended(nn.SequentialCell):
    """A cell of a network and the attention layer after it, under the names "last" and "attention"."""

    def __init__(self, last: nn.Cell, attention: nn.Cell) -> None:
        super().__init__(OrderedDict(last=last, attention=attention))


def insert_layers(network: nn.Cell, points: Sequence[InsertionPoint], insertion: Insertion, known: str) -> None:
    """Insert new layers with the dtype and mixed precision of the network; other parameters keep their names.

    See `maam._insertion.make_layers` for the arguments and errors. After an error the network is unchanged.
    """
    names = {id(parameter): parameter.name for _, parameter in network.parameters_and_names()}
    dtype = next((p.dtype for _, p in network.parameters_and_names() if p.dtype in mstype.float_type), mstype.float32)
    try:
        made = make_layers(network, points, insertion, KINDS, known)
        for point, layer in made:
            setattr(layer, _INSERTED, True)
            point.put(layer.set_train(network.training))
        _adopt_mixed_precision(network, [layer for _, layer in made])
    finally:
        _name_parameters(network, names, dtype)


def compute_shape(layer: nn.Cell, channels: int) -> tuple[int, ...]:
    """Return the shape of the output of a new cell for a map (2, channels, 8, 8), in eval mode.

    The cell runs in PyNative mode, so that nothing is compiled.
    """
    values = np.random.default_rng(0).standard_normal((2, channels, 8, 8), np.float32)
    with preserve_mode(PYNATIVE_MODE):
        return tuple(layer.set_train(False)(Tensor(values)).shape)


KINDS = LayerKinds(LAYERS, Layer, nn.Cell, "cell", Blend, compute_shape)
_INSERTED = "_inserted_by_maam"
"""The attribute that marks inserted layers."""


def _name_parameters(network: nn.Cell, names: Mapping[int, str], dtype: Any) -> None:
    """Name the parameters of new layers by their paths and convert them to a dtype; others get their `names` back.

    A path that is the name of another parameter gets a number.
    """
    parameters = list(network.parameters_and_names())
    chains = [path for path, cell in network.cells_and_names() if isinstance(cell, Attended)]
    taken = {names[id(parameter)] for _, parameter in parameters if id(parameter) in names}
    for path, parameter in parameters:
        if id(parameter) in names:
            parameter.name = names[id(parameter)]
            continue
        name = ".".join(part for part in _without_chains(path, chains).split(".") if part != "_backbone")
        choices = (name, *(f"{name}_{number}" for number in range(2, len(parameters) + 2)))
        parameter.name = next(choice for choice in choices if choice not in taken)
        taken.add(parameter.name)
        if parameter.dtype in mstype.float_type:
            convert(parameter, dtype)


def _without_chains(path: str, chains: Sequence[str]) -> str:
    """Return the path of a cell or parameter without the chains of inserted layers, as in the plain network."""
    for chain in sorted(chains, key=len, reverse=True):
        start = f"{chain}.last" if chain else "last"
        if is_within(path, [start]):
            path = (chain + path[len(start) :]).removeprefix(".")
    return path


def _adopt_mixed_precision(network: nn.Cell, new: Sequence[nn.Cell]) -> None:
    """Apply the mixed precision of the cells before new layers, or around them, to these layers."""
    cells = [cell for _, cell in network.cells_and_names()]
    keeps_norms = any(_is_cast_norm(cell) for cell in cells)
    for parent in cells:
        for layer in parent.cells():
            dtype = _half_precision(parent[0] if isinstance(parent, Attended) else parent)
            if dtype is None or not any(layer is one for one in new):
                continue
            own = layer.layer if isinstance(layer, Blend) else layer
            if keeps_norms:
                amp.auto_mixed_precision(own, "O2", dtype)  # in place
            else:
                own.to_float(dtype)


def _is_cast_norm(cell: nn.Cell) -> bool:
    """Return whether a cell is a wrapper of mixed precision of level O2 around a batch norm in float32."""
    return hasattr(cell, "_backbone") and getattr(cell, "dtype", None) in _HALF


def _half_precision(cell: nn.Cell) -> Any:
    """Return the dtype to which mixed precision casts the output of a cell; None for no mixed precision."""
    if _is_cast_norm(cell):
        return cell.dtype
    flags = zip(("fp16", "bf16"), _HALF, strict=True)
    return next((dtype for flag, dtype in flags if getattr(cell, flag, False)), None)


_HALF = (mstype.float16, mstype.bfloat16)


def points_after(network: nn.Cell, where: Any) -> Iterator[InsertionPoint]:
    """Yield the points after the cells whose names match.

    Names are those of the network without inserted chains. The cells inside inserted layers do not match.

    Raises:
        SpecError: see `insert_attention`.
    """
    found = dict(network.cells_and_names())
    chains = [path for path, cell in found.items() if isinstance(cell, Attended)]
    inside = tuple(f"{path}." for path, cell in found.items() if is_inserted(cell))
    paths: dict[str, str] = {}
    for path in found:
        if not path.startswith(inside) and path.removesuffix(".attention") not in chains:
            paths.setdefault(_without_chains(path, chains), path)  # a chain comes before its cells
    replaced: list[nn.Cell] = []
    for name in matching(paths, where, network):
        parent, _, local = paths[name].rpartition(".")
        parts = parent.split(".") if parent else []
        check_is_free(name, (found[".".join(parts[:count])] for count in range(len(parts) + 1)))
        point = _point_after(name, found[parent], local)
        if point.current is None or not any(point.current is one for one in replaced):
            replaced.append(point.current)
            yield point


def is_inserted(cell: nn.Cell) -> bool:
    """Return whether a cell is an attention layer that was inserted."""
    return hasattr(cell, _INSERTED)


def _point_after(name: str, parent: nn.Cell, local: str) -> InsertionPoint:
    cell = parent._cells[local]
    if isinstance(cell, (nn.CellList, nn.CellDict)):
        raise SpecError(
            f"where: {name!r} is a {type(cell).__name__}, not a layer, because it has no output; match the cells "
            f"inside, such as '{name}.*'"
        )
    channels = channels_after(name, cell, _layers_inside)
    if isinstance(cell, Attended):
        return InsertionPoint(channels, cell[1], partial(replace_child, cell, "attention"))
    if is_inserted(cell):
        return InsertionPoint(channels, cell, partial(replace_child, parent, local))
    for chain, start in ((cell, list(cell._cells)[-1:]), (parent, _names_after(parent, local))):
        for following in start:  # a layer at the end of the cell, or after it
            if isinstance(chain, nn.SequentialCell) and is_inserted(current := chain._cells[following]):
                return InsertionPoint(channels, current, partial(replace_child, chain, following))
    return InsertionPoint(channels, None, partial(attach, parent, local))


def _names_after(parent: nn.Cell, name: str) -> list[str]:
    """Return the name of the child after another one; empty for the last."""
    names = list(parent._cells)
    return names[names.index(name) + 1 :][:1]


def _layers_inside(cell: nn.Cell) -> list[nn.Cell]:
    """Return the cells directly inside a cell, without inserted attention."""
    return [inner for inner in cell.cells() if not is_inserted(inner)]


def attach(parent: nn.Cell, name: str, layer: nn.Cell) -> None:
    """Replace the child `name` of a cell by the chain of it and an attention layer."""
    replace_child(parent, name, Attended(parent._cells[name], layer))


def replace_child(parent: Any, name: str, cell: nn.Cell) -> None:
    """Replace a child of a cell, or append it to a chain.

    The methods of MindSpore's containers derive names of parameters from others, which fails for names of the plain
    network inside a chain.
    """
    if isinstance(parent, (nn.SequentialCell, nn.CellList)) and not isinstance(parent, Container):
        if isinstance(parent, nn.SequentialCell) and name not in parent._cells:
            parent._is_dynamic_name.append(True)  # an entry for each cell, which MindSpore's methods read
        parent._cells[name] = cell
        if isinstance(parent, nn.SequentialCell):
            parent.cell_list = list(parent._cells.values())
    else:
        setattr(parent, name, cell)
