"""torchvision's residual blocks with attention in front of the addition."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck


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
