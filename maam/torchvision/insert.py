"""Layers of ours in torchvision's networks, in which all other parameters keep their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from torchvision.models import efficientnet, mobilenetv2, mobilenetv3
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import SqueezeExcitation

from maam._insertion import Place
from maam.torch.insertion import MakeLayer, fill


class GatedBasicBlock(BasicBlock):  # type: ignore[misc]
    """A `BasicBlock` with attention: takes over the layers of `block`, under their names."""

    def __init__(self, block: BasicBlock, attention: nn.Module) -> None:
        nn.Module.__init__(self)
        _take_over(self, block, attention)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, planes, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.attention(self.bn2(self.conv2(y)))
        return self.relu(y + _shortcut(self, x))


class GatedBottleneck(Bottleneck):  # type: ignore[misc]
    """A `Bottleneck` with attention: takes over the layers of `block`, under their names."""

    def __init__(self, block: Bottleneck, attention: nn.Module) -> None:
        nn.Module.__init__(self)
        _take_over(self, block, attention)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, 4 * planes, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.attention(self.bn3(self.conv3(y)))
        return self.relu(y + _shortcut(self, x))


def _take_over(gated: Any, block: Any, attention: nn.Module) -> None:
    for name, layer in block.named_children():
        gated.add_module(name, layer)
    gated.downsample, gated.stride = block.downsample, block.stride
    gated.attention = attention
    gated.training = block.training


def _shortcut(block: Any, x: Tensor) -> Tensor:
    return x if block.downsample is None else block.downsample(x)


RESIDUAL: dict[type[nn.Module], tuple[Callable[..., nn.Module], str]] = {
    BasicBlock: (GatedBasicBlock, "conv2"),
    Bottleneck: (GatedBottleneck, "conv3"),
}
"""Blocks of ResNets: what they become, and the convolution whose output the attention takes, behind its batch norm."""
CHAINS: dict[type[nn.Module], str] = {
    mobilenetv2.InvertedResidual: "conv",
    mobilenetv3.InvertedResidual: "block",
    efficientnet.MBConv: "block",
    efficientnet.FusedMBConv: "block",
}
"""Blocks of MobileNets and EfficientNets, and the name of their chain of layers."""
KNOWN = "blocks of torchvision's ResNet, MobileNetV2, MobileNetV3 or EfficientNet"


def insert_attention(network: nn.Module, attention: str | MakeLayer, *, every_block: bool = False) -> nn.Module:
    """Put a layer into one of torchvision's networks, in place; returns the network.

    Where the network has attention (squeeze and excitation in MobileNetV3 and EfficientNet), the new layer takes its
    place; where it has none, one goes into every block, at the end of the residual branch, in front of the addition
    (ResNet, wide ResNet, ResNeXt, MobileNetV2). All parameters that stay keep their names and values.

    Args:
        network: a network of torchvision, or one with such blocks in it.
        attention: "maam", "maf", "mafc", "mafb", "se" or "cbam"; a subclass of `maam.torch.layers.Layer`; or a function
            of the number of channels that returns a module of (N, channels, H, W) to the same shape, such as
            `functools.partial(MAFC, rd_ratio=1 / 8)`. It is called with nothing else: a layer's own defaults hold.
        every_block: blocks without attention get the layer too, in a network that has it in some.

    Raises:
        SpecError: there is no layer of that name, `attention` makes no module or one that changes the shape, or the
            network has no block for it; the network is then as it was.
    """
    places = [place for module in network.modules() for place in _places(module)]
    fill(network, places, attention, every_block, KNOWN)
    return network


def _places(module: nn.Module) -> Iterator[Place]:
    for name, child in module.named_children():
        if type(child) in RESIDUAL:
            yield _in_front_of_addition(module, name, child)
        elif isinstance(child, (GatedBasicBlock, GatedBottleneck)):
            yield _instead(child)
    if type(module) in CHAINS:
        yield _in_chain(module, module.get_submodule(CHAINS[type(module)]))


def _in_front_of_addition(parent: nn.Module, name: str, block: Any) -> Place:
    gated, last = RESIDUAL[type(block)]

    def put(layer: nn.Module) -> None:
        setattr(parent, name, gated(block, layer))

    return Place(block.get_submodule(last).out_channels, False, put)


def _instead(block: Any) -> Place:
    def put(layer: nn.Module) -> None:
        block.attention = layer

    last = "conv3" if isinstance(block, GatedBottleneck) else "conv2"
    return Place(block.get_submodule(last).out_channels, True, put)


def _in_chain(block: Any, chain: Any) -> Place:
    found = [index for index, layer in enumerate(chain) if isinstance(layer, SqueezeExcitation)]
    index, channels = block.__dict__.get("attention_at", (None, block.out_channels))
    if found:
        index, channels = found[0], chain[found[0]].fc1.in_channels

    def put(layer: nn.Module) -> None:
        if index is None:
            chain.append(layer)
        else:
            chain[index] = layer
        block.attention_at = (len(chain) - 1 if index is None else index, channels)  # for the next time

    return Place(channels, index is not None, put, added_to=index in (None, len(chain) - 1))
