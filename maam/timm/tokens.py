"""Layers for maps on the tokens of a vision transformer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from maam.errors import ShapeError


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
