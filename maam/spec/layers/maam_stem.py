"""MAAM layers in a row: the body of a network for large images, or the stem of another."""

from __future__ import annotations

from typing import Any

from maam.errors import SpecError
from maam.spec.composites import Sizes, composite
from maam.spec.fields import Flag, Size, plain_integer
from maam.spec.layers.blocks import NormName, conv_norm_act
from maam.spec.layers.maam import Fusion, NumAgents, maam
from maam.spec.node import Node
from maam.spec.primitives import Conv2d, ElementwiseName, Sequential


@composite
def maam_stem(
    in_channels: Size,
    channels: Sizes,
    out_channels: Size | None = None,
    *,
    num_agents: NumAgents = 3,
    fusion: Fusion = "softmax",
    reduce: Flag = True,
    depthwise: Flag = True,
    act_layer: ElementwiseName = "relu",
    norm_layer: NormName = "batch_norm",
) -> Sequential:
    """A 3x3 convolution of stride 2, then MAAM layers that each halve the map.

    (in_channels, H, W) to (channels[-1] or out_channels, H', W'), H' = ceil(H / 2) // 2^(number of MAAM layers).

    Args:
        in_channels: channels of the input.
        channels: width of each MAAM layer; the first convolution has half of the first.
        out_channels: a 1x1 convolution with bias to so many channels follows; None: none does.
        num_agents: number of parallel branches.
        fusion: how the branches become one: "softmax" of one learnable scalar a branch, "mean", or "dynamic": softmax
            of a linear map of the globally average-pooled input.
        reduce: whether the 1x1 convolution, batch norm and activation of the reduce layer follow.
        depthwise: each convolution of a branch becomes a depthwise one and a 1x1.
        act_layer: activation by name.
        norm_layer: "batch_norm", or "identity": no normalisation, and convolutions with bias.

    Raises:
        SpecError: an argument is invalid.
    """
    width = max(channels[0] // 2, 1)
    conv = Conv2d(
        in_channels=in_channels,
        out_channels=width,
        kernel_size=3,
        stride=2,
        padding=1,
        bias=norm_layer != "batch_norm",
        init="kaiming_normal",
    )
    layer: dict[str, Any] = {"act_layer": act_layer, "norm_layer": norm_layer}
    body: dict[str, Node] = {"stem": Sequential(children=conv_norm_act(conv, width, **layer))}
    layer |= {"num_agents": num_agents, "fusion": fusion, "reduce": reduce, "depthwise": depthwise}
    for index, wider in enumerate(channels):
        body[f"stage{index + 1}"] = maam(width, wider, pool=(1, 2), **layer)
        width = wider
    if out_channels is not None:
        body["proj"] = Conv2d(in_channels=width, out_channels=out_channels, kernel_size=1)
    return Sequential(children=body)


SMALLEST_WIDTH = 8


def patch_widths(patch_size: int, out_channels: int) -> tuple[int, ...]:
    """Widths for `maam_stem` that make one position of a patch: each twice the one before, up to `out_channels`.

    None is below 8. The patch is square; a stem halves it by its first convolution and by each MAAM layer.

    Raises:
        SpecError: `patch_size` is no power of two of at least 4, or `out_channels` no integer of at least 1.
    """
    patch_size, out_channels = plain_integer(patch_size), plain_integer(out_channels)
    if not isinstance(out_channels, int) or out_channels < 1:
        raise SpecError(f"out_channels: expected an integer of at least 1, got {out_channels!r}")
    if not isinstance(patch_size, int) or patch_size < 4 or patch_size & (patch_size - 1):
        raise SpecError(f"patch_size: expected a power of two of at least 4, got {patch_size}")
    count = patch_size.bit_length() - 2
    return tuple(max(out_channels >> (count - 1 - index), SMALLEST_WIDTH) for index in range(count))
