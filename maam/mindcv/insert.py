"""Insertion of attention layers into MindCV's networks; the other parameters keep their names."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from mindcv.models.mobilenetv1 import MobileNetV1
from mindcv.models.mobilenetv2 import InvertedResidual
from mindcv.models.mobilenetv3 import Bottleneck as MobileBottleneck
from mindcv.models.resnet import BasicBlock, Bottleneck
from mindcv.models.resnetv2 import PreActBottleneck
from mindspore import nn

from maam._insertion import Insertion, InsertionPoint, check_network
from maam.mindspore.insertion import MakeLayer, insert_layers

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
            (attention(x) - x), where gamma is learnable and starts at 0, and x stands for the output of the layer that
            is replaced, if there is one. For pretrained networks. Default: False.
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
    points = [point for _, cell in network.cells_and_names() for point in _points(cell)]
    insert_layers(network, points, Insertion(attention, every_block, identity_init, where), KNOWN)
    return network


def _points(cell: nn.Cell) -> Iterator[InsertionPoint]:
    if type(cell) in LAST_OF_BRANCH:
        yield _point_after(cell, LAST_OF_BRANCH[type(cell)])
    elif isinstance(cell, (InvertedResidual, MobileBottleneck)):
        yield _point_in_chain(cell.layers)
    elif isinstance(cell, MobileNetV1):  # its blocks have no separate class
        yield from (_point_in_chain(unit) for unit in cell.features if isinstance(unit, nn.SequentialCell))


def _point_after(block: nn.Cell, name: str) -> InsertionPoint:
    last = getattr(block, name)
    last, current = (last[0], last[1]) if isinstance(last, nn.SequentialCell) else (last, None)

    def put(layer: nn.Cell) -> None:
        setattr(block, name, nn.SequentialCell(OrderedDict({"last": last, "attention": layer})))

    channels = last.out_channels if isinstance(last, nn.Conv2d) else last.num_features
    return InsertionPoint(channels, current, put)


def _point_in_chain(chain: nn.SequentialCell) -> InsertionPoint:
    """Return the point of the attention layer, or else the end of the chain, so that other layers keep their index."""
    index = next((index for index, cell in enumerate(chain) if not isinstance(cell, _PLAIN)), None)
    norms = [cell for cell in list(chain)[:index] if isinstance(cell, nn.BatchNorm2d)]
    put = chain.append if index is None else functools.partial(chain.__setitem__, index)
    return InsertionPoint(norms[-1].num_features, None if index is None else chain[index], put)
