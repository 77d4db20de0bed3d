"""Shape checks that several primitives share."""

from __future__ import annotations

from maam.errors import ShapeError
from maam.spec.fields import Shape


def feature_map(shape: Shape, channels: int | None = None) -> tuple[int, int, int]:
    """`shape` as (C, H, W); with `channels`, C must be that.

    Raises:
        ShapeError: `shape` is no feature map, or has another number of channels.
    """
    if len(shape) != 3 or any(size < 1 for size in shape):
        raise ShapeError(f"expected a feature map (C, H, W), got shape {shape}")
    if channels is not None and shape[0] != channels:
        raise ShapeError(f"expected {channels} channels, got {shape[0]}")
    return shape[0], shape[1], shape[2]


def windows(size: tuple[int, int], extent: int, stride: int, padding: int) -> tuple[int, int]:
    """The number of positions of a window of `extent` over a padded map of `size` (H, W).

    Raises:
        ShapeError: the padded map is smaller than the window.
    """
    if min(size) + 2 * padding < extent:
        padded = f" padded by {padding}" if padding else ""
        raise ShapeError(f"a map of {size[0]}x{size[1]}{padded} is too small for a window of {extent}x{extent}")
    height, width = ((side + 2 * padding - extent) // stride + 1 for side in size)
    return height, width
