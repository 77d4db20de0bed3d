"""Insertion of attention layers into MindCV's networks; the other parameters keep their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from mindcv.models.mobilenetv1 import MobileNetV1
from mindcv.models.mobilenetv2 import InvertedResidual
from mindcv.models.mobilenetv3 import Bottleneck as MobileBottleneck
from mindcv.models.resnet import BasicBlock, Bottleneck
from mindcv.models.resnetv2 import PreActBottleneck
from mindspore import nn

from maam._insertion import Insertion, InsertionPoint, check_network
from maam.mindspore.arrays import unwrap
from maam.mindspore.insertion import (
    Attended,
    MakeLayer,
    attach,
    insert_layers,
    is_inserted,
    points_after,
    replace_child,
)

LAST_OF_BRANCH = {BasicBlock: "bn2", Bottleneck: "bn3", PreActBottleneck: "conv3"}
"""The blocks of ResNets, and the layer whose output is added to the shortcut."""
_PLAIN = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.HSwish)
"""The layers of MobileNets that are not attention."""
KNOWN = "a ResNet, ResNeXt or ResNetV2 of MindCV, or its MobileNetV1, V2 or V3"


def insert_attention(
    network: nn.Cell,
    attention: str | MakeLayer,
    *,
    every_block: bool = False,
    identity_init: bool = False,
    where: str | Sequence[str] | None = None,
) -> nn.Cell:
    """Insert an attention layer into the blocks of a MindCV network, in place.

    Call this function before the first run of the network in graph mode. The insertion points are:

    - ResNet, ResNeXt, ResNetV2, MobileNetV2: the end of the residual branch, before the addition.
    - MobileNetV1: the end of every depthwise separable unit.
    - MobileNetV3: the squeeze and excitation, in blocks that have it.

    A layer that was inserted before is replaced. The other parameters keep their names and values, so checkpoints of
    the plain network can be loaded before and after the insertion.

    Args:
        network: a network of MindCV, or a cell with such blocks.
        attention: the name of a layer, such as "eca" (`list_attention` returns all names); a subclass of
            `maam.mindspore.layers.Layer`; or a function from the number of channels to a cell that keeps the shape (N,
            channels, H, W), such as `functools.partial(MAFC, rd_ratio=1 / 8)`.
        every_block: whether the blocks of a MobileNetV3 without squeeze and excitation get a layer too, at their end.
        identity_init: whether the network computes the same as before until it is trained: y = x + gamma *
            (attention(x) - x), where gamma is learnable and starts at 0. If the layer replaces another one, x is the
            output of the old layer. Use it for pretrained networks. Default: False.
        where: the names of the layers after which attention goes, in place of the blocks above; see
            `maam.mindspore.insert_attention`. Default: None.

    Returns:
        The network.

    Raises:
        SpecError: no layer has that name, `attention` returns an object that is not a cell or changes the shape, or
            the network has no known block. The network is then unchanged.

    Example:
        >>> import mindcv
        >>> from maam.mindcv import insert_attention
        >>> network = insert_attention(mindcv.create_model("mobilenet_v1_025", num_classes=10), "mafc")
        >>> type(network.features[3][-1]).__name__
        'MAFC'
    """
    check_network(network, nn.Cell, "mindspore.nn.Cell")
    if where is None:
        points = [point for _, cell in network.cells_and_names() for point in _points(cell)]
    else:
        points = list(points_after(network, where))
    insert_layers(network, points, Insertion(attention, every_block, identity_init, where), KNOWN)
    return network


def _points(cell: nn.Cell) -> Iterator[InsertionPoint]:
    if type(cell) in LAST_OF_BRANCH:
        yield _point_after(cell, LAST_OF_BRANCH[type(cell)])
    elif isinstance(cell, (InvertedResidual, MobileBottleneck)):
        yield _point_in_chain(cell.layers)
    elif isinstance(cell, MobileNetV1):  # its blocks have no separate class
        yield from (_point_in_chain(unit) for unit in cell.features if isinstance(_plain(unit), nn.SequentialCell))


def _plain(cell: nn.Cell) -> nn.Cell:
    """Return the cell of the network inside a chain that `where` has inserted and inside mixed precision."""
    return unwrap(cell[0] if isinstance(cell, Attended) else cell)


def _attention_of(chain: Attended) -> tuple[nn.Cell, partial[None]]:
    """Return the attention layer of a chain, and a function that replaces it."""
    return chain[1], partial(replace_child, chain, "attention")


def _point_after(block: nn.Cell, name: str) -> InsertionPoint:
    last = getattr(block, name)
    plain = _plain(last)
    channels = plain.out_channels if isinstance(plain, nn.Conv2d) else plain.num_features
    if isinstance(last, Attended):
        return InsertionPoint(channels, *_attention_of(last))
    return InsertionPoint(channels, None, partial(attach, block, name))


def _point_in_chain(chain: nn.SequentialCell) -> InsertionPoint:
    """Return the point of the attention layer, or else the end of the chain, so that other layers keep their index."""
    cells: Any = _plain(chain)
    plain = [_plain(cell) for cell in cells]
    attended = (i for i, cell in enumerate(plain) if is_inserted(cell) or not isinstance(cell, _PLAIN))
    index = next(attended, None)
    channels = [cell.num_features for cell in plain[:index] if isinstance(cell, nn.BatchNorm2d)][-1]
    if index is not None:
        name = list(cells._cells)[index]
        return InsertionPoint(channels, cells[index], partial(replace_child, cells, name))
    for end in (chain, cells[-1]):
        if isinstance(end, Attended):
            return InsertionPoint(channels, *_attention_of(end))
    return InsertionPoint(channels, None, partial(replace_child, cells, str(len(cells))))
