"""What a spec asks of its input, as a few integers that are cheap to compare in any framework."""

from __future__ import annotations

from typing import NamedTuple

from maam.errors import ShapeError
from maam.spec.fields import Shape
from maam.spec.node import Node
from maam.spec.primitives import Model

_LARGEST_MINIMUM = 512


class InputRule(NamedTuple):
    """The inputs that a spec takes: rank with batch, channels (None: any), least size, and a size if it is fixed."""

    rank: int
    channels: int | None
    minimum: int
    size: tuple[int, int] | None

    def accepts(self, shape: Shape) -> bool:
        """Whether a batch of `shape`, (N, C, H, W) or (N, features), can be given to the spec."""
        if len(shape) != self.rank or (self.channels is not None and shape[1] != self.channels):
            return False
        if self.rank != 4:
            return True
        if self.size is not None:
            return bool(shape[2] == self.size[0] and shape[3] == self.size[1])
        return bool(shape[2] >= self.minimum and shape[3] >= self.minimum)

    def check(self, shape: Shape, dtype: str = "float32", parameter_dtype: str | None = None) -> None:
        """Refuse a batch of a wrong `shape`, or of a dtype that is not floating point or not the parameters'.

        `parameter_dtype` None (mixed precision, or no parameters) stands for any floating-point dtype.

        Raises:
            ShapeError: what was given, and what was expected.
        """
        expected = self.describe()
        if len(shape) != self.rank:
            raise ShapeError(f"expected an input {expected}, got {len(shape)} dimensions: {tuple(shape)}")
        if not self.accepts(shape):
            raise ShapeError(f"expected an input {expected}, got {tuple(shape)}")
        if "float" not in dtype:
            raise ShapeError(f"expected a floating-point input {expected}, got {dtype}; convert it, and scale images to [0, 1]")
        if parameter_dtype not in (None, dtype):
            raise ShapeError(f"expected an input of dtype {parameter_dtype}, as the parameters have, got {dtype}; convert one")

    def describe(self) -> str:
        """The rule as people write it: (N, 3, 32, 32), or (N, 3, H, W) with H, W >= 4."""
        channels = "C" if self.channels is None else self.channels
        if self.rank == 2:
            return f"(N, {channels})"
        if self.size is not None:
            return f"(N, {channels}, {self.size[0]}, {self.size[1]})"
        least = f" with H, W >= {self.minimum}" if self.minimum > 1 else ""
        return f"(N, {channels}, H, W){least}"


def input_rule(spec: Node) -> InputRule:
    """The rule of a spec; for a `Model` that only works at one size (flatten, then linear) the size is fixed."""
    channels = spec.in_channels_expected
    if isinstance(spec, Model):
        channels, height, width = spec.input_shape
        if not _fits(spec, (channels, 2 * height, 2 * width)):
            return InputRule(4, channels, 1, (height, width))
    if _fits(spec, (channels or 1,)) and not _fits(spec, (channels or 1, 64, 64)):
        return InputRule(2, channels, 1, None)
    sizes = (side for side in range(1, _LARGEST_MINIMUM + 1) if _fits(spec, (channels or 1, side, side)))
    return InputRule(4, channels, next(sizes, 1), None)


def _fits(spec: Node, shape: Shape) -> bool:
    try:
        spec.output_shape(shape)
    except ShapeError:
        return False
    return True
