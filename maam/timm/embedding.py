"""MAAM as the convolutional stem of a vision transformer, and attention layers on tokens."""

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
    """A layer for maps, applied to the tokens of a vision transformer: (N, L, C) to (N, L, C).

    The tokens after the prefix are arranged as a map (N, C, H, W), row by row. The prefix is not changed.

    Args:
        layer: a module that keeps the shape (N, C, H, W).
        grid_size: height and width of the map. If both are equal, other square numbers of tokens are accepted too.
        num_prefix_tokens: the number of class and register tokens before the map.

    Raises:
        ShapeError: on a forward pass, if the number of tokens does not match the map.

    Example:
        >>> import torch
        >>> from maam.timm import TokenMap
        >>> from maam.torch import MAFC
        >>> layer = TokenMap(MAFC(192), grid_size=(14, 14), num_prefix_tokens=1)
        >>> layer(torch.rand(2, 197, 192)).shape
        torch.Size([2, 197, 192])
    """

    def __init__(self, layer: nn.Module, grid_size: tuple[int, int], num_prefix_tokens: int = 0) -> None:
        super().__init__()
        self.layer = layer
        self.grid_size = (int(grid_size[0]), int(grid_size[1]))
        self.num_prefix_tokens = num_prefix_tokens

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the layer as tokens (N, L, C)."""
        prefix, tokens = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        height, width = self._grid(tokens.shape[1])
        maps = tokens.reshape(-1, height, width, tokens.shape[2]).permute(0, 3, 1, 2)  # (N, C, H, W), a view
        y = self.layer(maps).permute(0, 2, 3, 1).flatten(1, 2)  # (N, H * W, C)
        return torch.cat((prefix, y), 1) if self.num_prefix_tokens else y

    def extra_repr(self) -> str:
        """Return the size of the map and of the prefix."""
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
            f"{count + self.num_prefix_tokens} tokens; for images of another shape insert the layer again"
        )


class MAAMEmbed(HybridEmbed):
    """A patch embedding of MAAM layers: an `embed_layer` for timm's VisionTransformer in place of `PatchEmbed`.

    It consists of a 3x3 convolution of stride 2, MAAM layers that each halve the map (`maam.spec.maam_stem`) until a
    patch is one position, and a 1x1 convolution to `embed_dim`. It turns (N, in_chans, H, W) into tokens
    (N, H/patch * W/patch, embed_dim).

    Args:
        img_size: height and width of the image, one number or two.
        patch_size: a power of two, at least 4.
        in_chans: the number of channels of the image.
        embed_dim: the length of a token.
        bias: ignored; accepted because timm passes it. The 1x1 convolution always has a bias.
        channels: the width of each MAAM layer, log2(patch_size) - 1 numbers. Default: `maam.spec.patch_widths`.
        stem: further arguments of `maam.spec.maam_stem`, such as {"fusion": "dynamic"}.
        device: the device of the parameters.
        dtype: the dtype of the parameters.
        options: the other arguments of timm's `HybridEmbed`.

    Raises:
        SpecError: the patch size or an argument of the stem is invalid.
        ShapeError: the image is smaller than a patch.

    Example:
        >>> import torch
        >>> from timm.models import VisionTransformer
        >>> from maam.timm import MAAMEmbed
        >>> network = VisionTransformer(32, 8, embed_dim=48, depth=1, num_heads=3, embed_layer=MAAMEmbed)
        >>> network(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 1000])
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
        default = spec.patch_widths(size, embed_dim)
        widths = default if channels is None else tuple(channels)
        if len(widths) != len(default):
            raise SpecError(
                f"channels: expected {len(default)} widths for patch_size {size}, got {len(widths)}: {widths}"
            )
        node = spec.maam_stem(in_chans, widths, embed_dim, **(stem or {}))
        backbone: Any = build(node, device=device, dtype=dtype)
        backbone.num_features = embed_dim  # timm reads it
        height, width = (img_size[0], img_size[1]) if isinstance(img_size, Sequence) else (img_size, img_size)
        super().__init__(
            backbone,
            img_size,
            patch_size=1,
            feature_size=node.output_shape((in_chans, height, width))[1:],  # type: ignore[arg-type]
            feature_ratio=size,
            in_chans=in_chans,
            embed_dim=embed_dim,
            proj=False,
            **options,
        )


def _side(patch_size: Any) -> Any:
    """Return the side of a square patch; other values are returned unchanged, and the spec refuses them."""
    sides = tuple(patch_size) if isinstance(patch_size, Sequence) else (patch_size,)
    return sides[0] if sides and set(sides) == {sides[0]} else patch_size
