"""Insertion of attention layers into torchvision's networks; the other parameters keep their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.models import efficientnet, mobilenetv2, mobilenetv3
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import SqueezeExcitation

from maam._insertion import Insertion, InsertionPoint, check_network
from maam.torch.insertion import MakeLayer, insert_layers


class _Gated:
    """Base of the blocks with attention: the layers of a block under the same names, and `attention`.

    `last` is the name of the convolution before the attention, with a batch norm between them.
    """

    last = ""

    def __init__(self: Any, block: Any, attention: nn.Module) -> None:
        nn.Module.__init__(self)
        for name, layer in block.named_children():
            self.add_module(name, layer)
        self.downsample, self.stride = block.downsample, block.stride
        self.attention = attention
        self.training = block.training


class GatedBasicBlock(_Gated, BasicBlock):  # type: ignore[misc]
    """A `BasicBlock` with attention.

    Args:
        block: the block whose layers are used, under the same names.
        attention: the layer before the addition.
    """

    last = "conv2"

    def forward(self, x: Tensor) -> Tensor:
        """Return a map (N, planes, H / stride, W / stride) for (N, C, H, W)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.attention(self.bn2(self.conv2(y)))
        return self.relu(y + _shortcut(self, x))


class GatedBottleneck(_Gated, Bottleneck):  # type: ignore[misc]
    """A `Bottleneck` with attention.

    Args:
        block: the block whose layers are used, under the same names.
        attention: the layer before the addition.
    """

    last = "conv3"

    def forward(self, x: Tensor) -> Tensor:
        """Return a map (N, 4 * planes, H / stride, W / stride) for (N, C, H, W)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.attention(self.bn3(self.conv3(y)))
        return self.relu(y + _shortcut(self, x))


def _shortcut(block: Any, x: Tensor) -> Tensor:
    return x if block.downsample is None else block.downsample(x)


RESIDUAL: dict[type[nn.Module], type[_Gated]] = {BasicBlock: GatedBasicBlock, Bottleneck: GatedBottleneck}
"""The blocks of ResNets, each with the block that has attention."""
CHAINS: dict[type[nn.Module], str] = {
    mobilenetv2.InvertedResidual: "conv",
    mobilenetv3.InvertedResidual: "block",
    efficientnet.MBConv: "block",
    efficientnet.FusedMBConv: "block",
}
"""The blocks of MobileNets and EfficientNets, and the name of their chain of layers."""
KNOWN = "blocks of torchvision's ResNet, MobileNetV2, MobileNetV3 or EfficientNet"


def insert_attention(
    network: nn.Module,
    attention: str | MakeLayer,
    *,
    every_block: bool = False,
    identity_init: bool = False,
    where: str | Sequence[str] | None = None,
) -> nn.Module:
    """Insert an attention layer into the blocks of a torchvision network, in place.

    If the network has attention (squeeze and excitation in MobileNetV3 and EfficientNet), the new layers replace it.
    If not (ResNet, wide ResNet, ResNeXt, MobileNetV2), every block gets a layer at the end of the residual branch,
    before the addition. The other parameters keep their names and values.

    Args:
        network: a network of torchvision, or a module with such blocks.
        attention: the name of a layer, such as "eca" (`list_attention` returns all names); a subclass of
            `maam.torch.layers.Layer`; or a function from the number of channels to a module that keeps the shape (N,
            channels, H, W), such as `functools.partial(MAFC, rd_ratio=1 / 8)`. It is called without other arguments.
        every_block: whether blocks without attention get a layer too, if the network has attention in some blocks.
        identity_init: whether the network computes the same as before until it is trained: y = x + gamma *
            (attention(x) - x), where gamma is learnable and starts at 0. If the layer replaces another one, x is the
            output of the old layer. Use it for pretrained networks. Default: False.
        where: the names of the layers after which attention goes, in place of the blocks above; see
            `maam.torch.insert_attention`. Default: None.

    Returns:
        The network.

    Raises:
        SpecError: no layer has that name, `attention` returns an object that is not a module or changes the shape, or
            the network has no known block. The network is then unchanged.

    Example:
        >>> import torch, torchvision
        >>> from maam.torchvision import insert_attention
        >>> network = insert_attention(torchvision.models.resnet18(num_classes=10), "mafc")
        >>> type(network.layer1[0].attention).__name__, network(torch.rand(2, 3, 32, 32)).shape
        ('MAFC', torch.Size([2, 10]))
    """
    check_network(network, nn.Module, "torch.nn.Module")
    points = [point for module in network.modules() for point in _points(module)]
    insert_layers(network, points, Insertion(attention, every_block, identity_init, where), KNOWN)
    return network


def _points(module: nn.Module) -> Iterator[InsertionPoint]:
    for name, child in module.named_children():
        if type(child) in RESIDUAL:
            yield _point_before_addition(module, name, child)
        elif isinstance(child, _Gated):
            yield _point_of_gated(child)
    if type(module) in CHAINS:
        yield _point_in_chain(module, module.get_submodule(CHAINS[type(module)]))


def _point_before_addition(parent: nn.Module, name: str, block: Any) -> InsertionPoint:
    gated = RESIDUAL[type(block)]

    def put(layer: nn.Module) -> None:
        setattr(parent, name, gated(block, layer))

    return InsertionPoint(block.get_submodule(gated.last).out_channels, None, put)


def _point_of_gated(block: Any) -> InsertionPoint:
    def put(layer: nn.Module) -> None:
        block.attention = layer

    return InsertionPoint(block.get_submodule(block.last).out_channels, block.attention, put)


def _point_in_chain(block: Any, chain: Any) -> InsertionPoint:
    found = [index for index, layer in enumerate(chain) if isinstance(layer, SqueezeExcitation)]
    index, channels = block.__dict__.get("attention_at", (None, block.out_channels))
    if found:
        index, channels = found[0], chain[found[0]].fc1.in_channels

    def put(layer: nn.Module) -> None:
        if index is None:
            chain.append(layer)
        else:
            chain[index] = layer
        block.attention_at = (len(chain) - 1 if index is None else index, channels)  # for the next insertion

    return InsertionPoint(
        channels, None if index is None else chain[index], put, added_in_place=index in (None, len(chain) - 1)
    )
