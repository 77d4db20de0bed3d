"""MAAM as the convolutional stem of a vision transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers.hybrid_embed import HybridEmbed

from maam import spec
from maam.errors import SpecError
from maam.torch import build


class MAAMEmbed(HybridEmbed):
    """Patches by MAAM layers: an `embed_layer` for timm's VisionTransformer in place of its `PatchEmbed`.

    A 3x3 convolution of stride 2, MAAM layers that each halve the map (`maam.spec.maam_stem`) until a patch has become
    one position, and a 1x1 convolution to `embed_dim`: (N, in_chans, H, W) to tokens (N, H/patch * W/patch, embed_dim).

    Args:
        img_size: height and width, one number or two.
        patch_size: a power of two of at least 4.
        in_chans: channels of the image.
        embed_dim: length of a token.
        bias: without effect, timm gives it; the 1x1 convolution has one.
        channels: width of each MAAM layer, log2(patch_size) - 1 of them; those of `maam.spec.patch_widths` by default.
        stem: further arguments of `maam.spec.maam_stem`, such as {"fusion": "dynamic"}.
        device: where the parameters are made.
        dtype: their dtype.
        options: the other arguments of timm's `HybridEmbed`.

    Raises:
        SpecError: the patch size is another, or an argument of the stem is invalid.
        ShapeError: the image is smaller than a patch.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        bias: bool = True,
        channels: Sequence[int] | None = None,
        stem: dict[str, Any] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        size = _side(patch_size)
        own = spec.patch_widths(size, embed_dim)
        widths = own if channels is None else tuple(channels)
        if len(widths) != len(own):
            raise SpecError(f"channels: expected {len(own)} widths for patch_size {size}, got {len(widths)}: {widths}")
        node = spec.maam_stem(in_chans, widths, embed_dim, **(stem or {}))
        backbone: Any = build(node, device=device, dtype=dtype)
        backbone.num_features = embed_dim  # timm asks for it
        super().__init__(
            backbone,
            img_size,
            patch_size=1,
            feature_size=node.output_shape((in_chans, *_both(img_size)))[1:],  # type: ignore[arg-type]
            feature_ratio=size,
            in_chans=in_chans,
            embed_dim=embed_dim,
            proj=False,
            **options,
        )


def _side(patch_size: Any) -> Any:
    """Of a square patch; what is none goes on as it is, to be refused."""
    sides = tuple(patch_size) if isinstance(patch_size, Sequence) else (patch_size,)
    return sides[0] if sides and set(sides) == {sides[0]} else patch_size


def _both(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size[0], size[1]) if isinstance(size, Sequence) else (size, size)
