"""Primitives that pool a feature map or work along its axes: windows, regions, global statistics, softmax, top-k."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import model_validator

from maam.errors import ShapeError
from maam.spec.fields import NonNegative, Shape, Size
from maam.spec.node import Node
from maam.spec.primitives import feature_map, windows

Axis = Literal["channels", "height", "width", "spatial"]
"""An axis of a feature map; "spatial" is height and width."""
AXES: dict[str, tuple[int, ...]] = {"channels": (1,), "height": (2,), "width": (3,), "spatial": (2, 3)}
"""The axes of a batch (N, C, H, W) by name."""


class Softmax(Node):
    """Softmax of a feature map along an axis: "channels", "height", "width" or "spatial" (all positions).

    Example:
        >>> from maam import spec
        >>> spec.Softmax(axis="spatial").output_shape((1, 8, 8))
        (1, 8, 8)
    """

    kind: ClassVar[str] = "softmax"
    axis: Axis

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input shape."""
        return feature_map(input_shape)


class TopK(Node):
    """The k largest values along the channels, in descending order.

    Shape:
        (C, ...) to (k, ...).

    Example:
        >>> from maam import spec
        >>> spec.TopK(k=4).output_shape((8, 1, 1))
        (4, 1, 1)
    """

    kind: ClassVar[str] = "top_k"
    k: Size

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (k, ...)."""
        if not input_shape or input_shape[0] < self.k:
            raise ShapeError(f"expected at least {self.k} channels, got shape {input_shape}")
        return (self.k, *input_shape[1:])


class _WindowPool(Node):
    kernel_size: Size
    stride: Size | None = None
    padding: NonNegative = 0

    @model_validator(mode="after")
    def _padding_fits(self) -> _WindowPool:
        if 2 * self.padding > self.kernel_size:
            raise ValueError(
                f"padding: {self.padding} must be at most half of kernel_size {self.kernel_size}, "
                "so that no window is entirely in the padding"
            )
        return self

    @property
    def step(self) -> int:
        """The stride; by default the size of the window."""
        return self.kernel_size if self.stride is None else self.stride

    def function_fields(self) -> dict[str, Any]:
        """Return the fields, with the default stride filled in."""
        return super().function_fields() | {"stride": self.step}

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (C, H', W')."""
        channels, *size = feature_map(input_shape)
        return channels, *windows((size[0], size[1]), self.kernel_size, self.step, self.padding)


class MaxPool2d(_WindowPool):
    """Max pooling. The value of the padding is minus infinity, and its width is at most half of the kernel size.

    Shape:
        (C, H, W) to (C, H', W'), with H' = (H + 2 * padding - kernel_size) // stride + 1. The default stride is
        `kernel_size`.

    Example:
        >>> from maam import spec
        >>> spec.MaxPool2d(kernel_size=2).output_shape((8, 32, 32))
        (8, 16, 16)
    """

    kind: ClassVar[str] = "max_pool2d"


class AvgPool2d(_WindowPool):
    """Average pooling. Padding, at most half of the kernel size, does not count: the mean is that of the other values.

    Shape:
        (C, H, W) to (C, H', W'), with H' = (H + 2 * padding - kernel_size) // stride + 1. The default stride is
        `kernel_size`.

    Example:
        >>> from maam import spec
        >>> spec.AvgPool2d(kernel_size=2).output_shape((8, 32, 32))
        (8, 16, 16)
    """

    kind: ClassVar[str] = "avg_pool2d"


class AdaptiveAvgPool2d(Node):
    """Average pooling to a fixed size, as in PyTorch.

    Row i is the mean of the rows floor(i * H / output_size) to ceil((i + 1) * H / output_size) - 1.

    Shape:
        (C, H, W) to (C, output_size, output_size). A map smaller than that is repeated.

    Example:
        >>> from maam import spec
        >>> spec.AdaptiveAvgPool2d(output_size=7).output_shape((8, 20, 15))
        (8, 7, 7)
    """

    kind: ClassVar[str] = "adaptive_avg_pool2d"
    output_size: Size

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (C, output_size, output_size)."""
        channels, *_ = feature_map(input_shape)
        return channels, self.output_size, self.output_size


def averaging_matrix(size: int, output_size: int) -> list[list[float]]:
    """Return the matrix (output_size, size) that `AdaptiveAvgPool2d` multiplies with the rows or columns of a map."""
    matrix = []
    for index in range(output_size):
        start, end = index * size // output_size, -(-(index + 1) * size // output_size)
        matrix.append([1 / (end - start) if start <= column < end else 0.0 for column in range(size)])
    return matrix


class GlobalPool(Node):
    """Global statistic over the channels, the height, the width, or height and width ("spatial").

    "std" is the unbiased standard deviation: the values are centered, and the sum of squares is divided by
    max(n - 1, 1), in float32 or wider. For equal values it is 0, apart from the rounding of their mean. Where it is 0,
    its gradient is 0, too. "var" is its square.

    Shape:
        (C, H, W) to the same shape with size 1 along the axis: (C, 1, 1) for "spatial".

    Example:
        >>> from maam import spec
        >>> spec.GlobalPool(function="std").output_shape((8, 32, 32))
        (8, 1, 1)
    """

    kind: ClassVar[str] = "global_pool"
    function: Literal["avg", "max", "std", "sum", "var"] = "avg"
    axis: Axis = "spatial"

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes of a batch (N, C, H, W)."""
        return AXES[self.axis]

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape with size 1 along the axis."""
        return tuple(1 if axis in self.axes else size for axis, size in enumerate(feature_map(input_shape), 1))
