"""Insertion of attention layers into timm's networks; the other parameters keep their names."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

from timm.models import FeatureDictNet, FeatureHookNet, VisionTransformer
from timm.models import _efficientnet_blocks as mobile
from timm.models.convnext import ConvNeXtBlock
from timm.models.densenet import DenseNet, DenseTransition
from timm.models.regnet import Bottleneck as RegNetBlock
from timm.models.regnet import PreBottleneck as RegNetPreBlock
from timm.models.res2net import Bottle2neck
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.sknet import SelectiveKernelBasic, SelectiveKernelBottleneck
from timm.models.vision_transformer import Block, ResPostBlock
from torch import nn

from maam._insertion import Insertion, InsertionPoint, check_network
from maam.errors import SpecError
from maam.timm.embedding import TokenMap
from maam.torch.insertion import MakeLayer, attach, insert_layers
from maam.torch.modules import Container

RESNETS: dict[type[nn.Module], str] = {
    BasicBlock: "conv2",
    Bottleneck: "conv3",
    Bottle2neck: "conv3",
    SelectiveKernelBasic: "conv2.conv",
    SelectiveKernelBottleneck: "conv3.conv",
}
"""The blocks of ResNets, and the convolution before the attention (with a batch norm between them)."""
MOBILE: dict[type[nn.Module], str] = {
    mobile.DepthwiseSeparableConv: "conv_pw",
    mobile.InvertedResidual: "conv_pwl",
    mobile.EdgeResidual: "conv_pwl",
    mobile.UniversalInvertedResidual: "pw_proj.conv",
}
"""The blocks of MobileNets and EfficientNets, and the convolution after the attention."""
KNOWN = "blocks of timm's ResNet, RegNet, EfficientNet, MobileNet, DenseNet, ConvNeXt or VisionTransformer"


def insert_attention(
    network: nn.Module,
    attention: str | MakeLayer,
    *,
    every_block: bool = False,
    identity_init: bool = False,
    where: str | Sequence[str] | None = None,
) -> nn.Module:
    """Insert an attention layer into the blocks of a timm network, in place.

    If the network has attention (squeeze and excitation in MobileNetV3, EfficientNet and `seresnet*`), the new layers
    replace it. If not, every block gets a layer. The insertion points are:

    - ResNet, ResNeXt, Res2Net, SKNet: the end of the residual branch, before the addition.
    - MobileNet, EfficientNet: after the depthwise convolution, where timm puts squeeze and excitation.
    - RegNet: after the grouped convolution, where timm puts squeeze and excitation.
    - DenseNet: after the convolution of each transition and after the last batch norm, by a forward hook.
    - ConvNeXt: the end of the residual branch, after the scaling by gamma.
    - VisionTransformer: the map of the tokens at the end of the MLP's residual branch, without prefix tokens.

    The other parameters keep their names and values.

    Args:
        network: a network of timm, with or without `features_only`, or a module with such blocks.
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
            the network has no known block, drops patches, or is a model of maam. The network is then unchanged.

    Example:
        >>> import timm, torch
        >>> from maam.timm import insert_attention
        >>> network = insert_attention(timm.create_model("resnet10t", num_classes=10), "mafc")
        >>> type(network.layer1[0].se).__name__, network(torch.rand(2, 3, 32, 32)).shape
        ('MAFC', torch.Size([2, 10]))
    """
    check_network(network, nn.Module, "torch.nn.Module")
    if isinstance(network, Container):
        raise SpecError(
            f"{type(network).__name__}: the spec of a model of maam determines its attention; choose it when the model "
            "is built, if the preset has the option: maam.timm.create_model('mafc_v2', attention='se')"
        )
    points = [point for module in network.modules() for point in _points(module)]
    insert_layers(network, points, Insertion(attention, every_block, identity_init, where), KNOWN)
    return network


def _points(module: nn.Module) -> Iterator[InsertionPoint]:
    if isinstance(module, VisionTransformer):
        for block in module.blocks.modules():
            if isinstance(block, (Block, ResPostBlock)):
                yield _point_on_tokens(module, block)
    if isinstance(module, ConvNeXtBlock):
        yield _point_at_the_end(module)
    if isinstance(module, DenseTransition):
        yield _point_after_module(module.conv)
    if (last := _last_norm(module)) is not None:
        yield _point_after_module(last)
    if isinstance(module, (RegNetBlock, RegNetPreBlock)):
        conv = next(inner for inner in module.conv2.modules() if isinstance(inner, nn.Conv2d))
        yield _point_at_se(module, conv.out_channels, added_in_place=False)
    for kind, name in RESNETS.items():
        if isinstance(module, kind):
            yield _point_at_se(module, _layer(module, name).out_channels, added_in_place=True)
    for kind, name in MOBILE.items():
        if isinstance(module, kind):
            yield _point_at_se(module, _layer(module, name).in_channels, added_in_place=False)


def _last_norm(module: nn.Module) -> nn.Module | None:
    """Return the last batch norm of a DenseNet; with `features_only` it exists if the last map is returned."""
    if isinstance(module, DenseNet):
        return getattr(module.features, "norm5", None)
    if isinstance(module, (FeatureDictNet, FeatureHookNet)):
        return getattr(module, "features_norm5", None)
    return None


def _layer(block: nn.Module, path: str) -> Any:
    return block.get_submodule(path)


def _point_at_se(block: nn.Module, channels: int, added_in_place: bool) -> InsertionPoint:
    current = None if isinstance(block.se, nn.Identity) else block.se
    return InsertionPoint(channels, current, partial(setattr, block, "se"), added_in_place)


def _point_after_module(module: Any) -> InsertionPoint:
    channels = module.out_channels if isinstance(module, nn.Conv2d) else module.num_features
    return InsertionPoint(channels, getattr(module, "attention", None), partial(attach, module), added_in_place=True)


def _point_at_the_end(block: Any) -> InsertionPoint:
    """Return the point in front of the drop path, which is the end of the residual branch."""
    last = block.drop_path
    current = last.attention if isinstance(last, nn.Sequential) else None
    drop = last if current is None else last.drop_path

    def put(layer: nn.Module) -> None:
        block.drop_path = nn.Sequential(OrderedDict(attention=layer, drop_path=drop))

    return InsertionPoint(block.conv_dw.out_channels, current, put)


def _point_on_tokens(network: VisionTransformer, block: Any) -> InsertionPoint:
    if not isinstance(network.patch_drop, nn.Identity):
        raise SpecError("attention: the network drops patches, so its tokens are not a map; use patch_drop_rate=0")
    last = block.drop_path2
    current = cast(Any, last.attention).layer if isinstance(last, nn.Sequential) else None

    def put(layer: nn.Module) -> None:
        tokens = TokenMap(layer, network.patch_embed.grid_size, network.num_prefix_tokens)
        drop = last if current is None else last.drop_path
        block.drop_path2 = nn.Sequential(OrderedDict(attention=tokens, drop_path=drop))

    return InsertionPoint(network.embed_dim, current, put)
