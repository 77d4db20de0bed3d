"""MAAM as the convolutional stem of a vision transformer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers.hybrid_embed import HybridEmbed
from torch import Tensor, nn

from maam import spec
from maam.errors import ShapeError, SpecError
from maam.torch import build


class TokenMap(nn.Module):
    """Runs a layer for maps on tokens: (N, L, C) to the same shape.

    The tokens behind the first `num_prefix_tokens` (class and register tokens) are laid out as a map (N, C, H, W), row
    by row; the prefix stays as it is.

    Args:
        layer: a module from (N, C, H, W) to the same shape.
        grid_size: height and width of the map; of as many tokens as another square has, that is taken.
        num_prefix_tokens: how many tokens in front belong to no place.

    Raises:
        ShapeError: when run, if the tokens make no such map.
    """

    def __init__(self, layer: nn.Module, grid_size: tuple[int, int], num_prefix_tokens: int = 0) -> None:
        super().__init__()
        self.layer = layer
        self.grid_size = (int(grid_size[0]), int(grid_size[1]))
        self.num_prefix_tokens = num_prefix_tokens

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, as tokens."""
        prefix, tokens = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        height, width = self._grid(tokens.shape[1])
        maps = tokens.reshape(-1, height, width, tokens.shape[2]).permute(0, 3, 1, 2)  # (N, C, H, W), a view
        y = self.layer(maps).permute(0, 2, 3, 1).flatten(1, 2)
        return torch.cat((prefix, y), 1) if self.num_prefix_tokens else y

    def extra_repr(self) -> str:
        """The map's size, and the prefix."""
        return f"grid_size={self.grid_size}, num_prefix_tokens={self.num_prefix_tokens}"

    def _grid(self, count: int) -> tuple[int, int]:
        height, width = self.grid_size
        if count == height * width:
            return height, width
        side = math.isqrt(count)
        if side * side == count and height == width:
            return side, side
        raise ShapeError(
            f"expected {self.num_prefix_tokens} prefix tokens and a map of {height}x{width}, got "
            f"{count + self.num_prefix_tokens} tokens; put the layer in again for images of another shape"
        )


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
