"""Layers of ours in MindCV's networks, in which all other parameters keep their names."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterator

from mindcv.models.mobilenetv1 import MobileNetV1
from mindcv.models.mobilenetv2 import InvertedResidual
from mindcv.models.mobilenetv3 import Bottleneck as MobileBottleneck
from mindcv.models.resnet import BasicBlock, Bottleneck
from mindcv.models.resnetv2 import PreActBottleneck
from mindspore import nn

from maam._insertion import Place
from maam.mindspore.insertion import MakeLayer, fill

LAST_OF_BRANCH = {BasicBlock: "bn2", Bottleneck: "bn3", PreActBottleneck: "conv3"}
"""Blocks of ResNets, and what in each gives the map that is added to the shortcut."""
_PLAIN = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.HSwish)
"""What the chains of MobileNets hold besides attention."""


def insert_attention(network: nn.Cell, attention: str | MakeLayer, *, every_block: bool = False) -> nn.Cell:
    """Put a layer into the blocks of one of MindCV's networks, in place; returns the network.

    ResNets (`resnet*`, `resnext*`, `resnetv2_*`) and MobileNetV2: at the end of the residual branch, in front of the
    addition. MobileNetV1: at the end of every depthwise separable unit. MobileNetV3: in place of squeeze and
    excitation, in the blocks that have it. A layer that was put in before is replaced. Call it before the network's
    first run in graph mode. All parameters that stay keep their names and values, so that checkpoints of the plain
    network load, before or after.

    Args:
        network: a network of MindCV, or one with such blocks in it.
        attention: "maam", "maf", "mafc", "mafb", "se" or "cbam"; a subclass of `maam.mindspore.layers.Layer`; or a
            function of the number of channels that returns a cell of (N, channels, H, W) to the same shape, such as
            `functools.partial(MAFC, rd_ratio=1 / 8)`.
        every_block: also into the blocks of a MobileNetV3 that have no squeeze and excitation, at their end.

    Raises:
        SpecError: there is no layer of that name, `attention` makes no cell or one that changes the shape, or no block
            of the network is known; the network is then as it was.
    """
    places = [place for _, cell in network.cells_and_names() for place in _places(cell)]
    known = "a ResNet, ResNeXt or ResNetV2 of MindCV, or its MobileNetV1, V2 or V3"
    fill(network, places, attention, every_block, known)
    return network


def _places(cell: nn.Cell) -> Iterator[Place]:
    """The places in a block, or in a network whose blocks have no class of their own."""
    if type(cell) in LAST_OF_BRANCH:
        yield _after(cell, LAST_OF_BRANCH[type(cell)])
    elif isinstance(cell, (InvertedResidual, MobileBottleneck)):
        yield _in_chain(cell.layers)
    elif isinstance(cell, MobileNetV1):
        yield from (_in_chain(unit) for unit in cell.features if isinstance(unit, nn.SequentialCell))


def _after(block: nn.Cell, name: str) -> Place:
    last = getattr(block, name)
    occupied = isinstance(last, nn.SequentialCell)
    if occupied:
        last = last[0]

    def put(layer: nn.Cell) -> None:
        setattr(block, name, nn.SequentialCell(OrderedDict({"last": last, "attention": layer})))

    return Place(last.out_channels if isinstance(last, nn.Conv2d) else last.num_features, occupied, put)


def _in_chain(chain: nn.SequentialCell) -> Place:
    """At the place of what is no plain layer, else at the end: so no other layer's number changes."""
    index = next((index for index, cell in enumerate(chain) if not isinstance(cell, _PLAIN)), None)
    norms = [cell for cell in list(chain)[:index] if isinstance(cell, nn.BatchNorm2d)]
    put = chain.append if index is None else functools.partial(chain.__setitem__, index)
    return Place(norms[-1].num_features, index is not None, put)
