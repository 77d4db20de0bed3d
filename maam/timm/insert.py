"""Layers of ours in timm's networks, in which all other parameters keep their names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from functools import partial
from typing import Any

from timm.models import VisionTransformer
from timm.models import _efficientnet_blocks as mobile
from timm.models.res2net import Bottle2neck
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.sknet import SelectiveKernelBasic, SelectiveKernelBottleneck
from timm.models.vision_transformer import Block, ResPostBlock
from torch import nn

from maam._insertion import Place
from maam.errors import SpecError
from maam.timm.embedding import TokenMap
from maam.torch.insertion import MakeLayer, fill
from maam.torch.modules import Container

RESNETS: dict[type[nn.Module], str] = {
    BasicBlock: "conv2",
    Bottleneck: "conv3",
    Bottle2neck: "conv3",
    SelectiveKernelBasic: "conv2.conv",
    SelectiveKernelBottleneck: "conv3.conv",
}
"""Blocks of ResNets, and the convolution whose output the attention takes, behind its batch norm."""
MOBILE: dict[type[nn.Module], str] = {
    mobile.DepthwiseSeparableConv: "conv_pw",
    mobile.InvertedResidual: "conv_pwl",
    mobile.EdgeResidual: "conv_pwl",
    mobile.UniversalInvertedResidual: "pw_proj.conv",
}
"""Blocks of MobileNets and EfficientNets, and the convolution that takes the attention's output."""
KNOWN = "blocks of timm's ResNet, EfficientNet, MobileNet or VisionTransformer"


def insert_attention(network: nn.Module, attention: str | MakeLayer, *, every_block: bool = False) -> nn.Module:
    """Put a layer into one of timm's networks, in place; returns the network.

    Where the network has attention (squeeze and excitation in MobileNetV3 and EfficientNet, `seresnet*`), the new layer
    takes its place; where it has none, one goes into every block. ResNets (with ResNeXt, Res2Net, SKNet): at the
    end of the residual branch, in front of the addition. Blocks of MobileNets and EfficientNets: behind the depthwise
    convolution, where timm has squeeze and excitation. VisionTransformers: on the map of the tokens, at the end of the
    MLP's residual branch; prefix tokens stay. All parameters that stay keep their names and values.

    Args:
        network: a network of timm, with `features_only` or without, or one with such blocks in it.
        attention: "maam", "maf", "mafc", "mafb", "se" or "cbam"; a subclass of `maam.torch.layers.Layer`; or a function
            of the number of channels that returns a module of (N, channels, H, W) to the same shape, such as
            `functools.partial(MAFC, rd_ratio=1 / 8)`. It is called with nothing else: a layer's own defaults hold.
        every_block: blocks without attention get the layer too, in a network that has it in some.

    Raises:
        SpecError: there is no layer of that name, `attention` makes no module or one that changes the shape, the
            network has no block for it, drops patches, or is a model of maam; the network is then as it was.
    """
    _check_not_ours(network)
    places = [place for module in network.modules() for place in _places(module)]
    fill(network, places, attention, every_block, KNOWN)
    return network


def _check_not_ours(network: nn.Module) -> None:
    if isinstance(network, Container):
        raise SpecError(
            f"{type(network).__name__}: a model of maam has its attention in its spec; choose it when the model is "
            "made, where its preset has the option: maam.timm.create_model('mafc_v2', attention='se')"
        )


def _places(module: nn.Module) -> Iterator[Place]:
    if isinstance(module, VisionTransformer):
        for block in module.blocks.modules():
            if isinstance(block, (Block, ResPostBlock)):
                yield _on_tokens(module, block)
    for kind, name in RESNETS.items():
        if isinstance(module, kind):
            yield _as_se(module, _layer(module, name).out_channels, added_to=True)
    for kind, name in MOBILE.items():
        if isinstance(module, kind):
            yield _as_se(module, _layer(module, name).in_channels, added_to=False)


def _layer(block: nn.Module, path: str) -> Any:
    return block.get_submodule(path)


def _as_se(block: nn.Module, channels: int, added_to: bool) -> Place:
    occupied = not isinstance(block.se, (nn.Identity, type(None)))
    return Place(channels, occupied, partial(setattr, block, "se"), added_to)


def _on_tokens(network: VisionTransformer, block: Any) -> Place:
    if not isinstance(network.patch_drop, nn.Identity):
        raise SpecError("attention: the network drops patches, so that its tokens make no map; use patch_drop_rate=0")
    last = block.drop_path2
    occupied = isinstance(last, nn.Sequential)

    def put(layer: nn.Module) -> None:
        tokens = TokenMap(layer, network.patch_embed.grid_size, network.num_prefix_tokens)
        drop = last.drop_path if occupied else last
        block.drop_path2 = nn.Sequential(OrderedDict(attention=tokens, drop_path=drop))

    return Place(network.embed_dim, occupied, put)
