"""Pooling over windows, and over the whole map."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import model_validator

from maam.spec.fields import NonNegative, Shape, Size
from maam.spec.node import Node
from maam.spec.primitives.shapes import feature_map, windows


class _WindowPool(Node):
    kernel_size: Size
    stride: Size | None = None

    @property
    def step(self) -> int:
        """The stride; as large as the window where none is given."""
        return self.kernel_size if self.stride is None else self.stride

    def function_fields(self) -> dict[str, Any]:
        """The stride as it is, given or not."""
        return super().function_fields() | {"stride": self.step}


class MaxPool2d(_WindowPool):
    """The largest value of each window: (C, H, W) to (C, H', W'). Padding counts as minus infinity."""

    kind: ClassVar[str] = "max_pool2d"
    padding: NonNegative = 0

    @model_validator(mode="after")
    def _padding_fits(self) -> MaxPool2d:
        if 2 * self.padding > self.kernel_size:
            raise ValueError(
                f"padding: {self.padding} must be at most half of kernel_size {self.kernel_size}, "
                "so that no window lies in the padding alone"
            )
        return self

    def output_shape(self, input_shape: Shape) -> Shape:
        """(C, H', W'), H' = (H + 2 padding - kernel_size) // stride + 1."""
        channels, *size = feature_map(input_shape)
        return channels, *windows((size[0], size[1]), self.kernel_size, self.step, self.padding)


class AvgPool2d(_WindowPool):
    """The mean of each window, without padding: (C, H, W) to (C, H', W')."""

    kind: ClassVar[str] = "avg_pool2d"

    def output_shape(self, input_shape: Shape) -> Shape:
        """(C, H', W'), H' = (H - kernel_size) // stride + 1."""
        channels, *size = feature_map(input_shape)
        return channels, *windows((size[0], size[1]), self.kernel_size, self.step, 0)


class GlobalPool(Node):
    """One statistic over the whole map, (C, H, W) to (C, 1, 1), or over the channels, to (1, H, W).

    std is the unbiased standard deviation: centred first, the sum of squares divided by max(n - 1, 1), in float32 or
    wider; where all values are equal it is 0 but for the rounding of their mean, and the gradient 0 where it is 0.
    """

    kind: ClassVar[str] = "global_pool"
    function: Literal["avg", "max", "std", "sum"] = "avg"
    axis: Literal["spatial", "channels"] = "spatial"

    def output_shape(self, input_shape: Shape) -> Shape:
        """(C, 1, 1), or (1, H, W) over the channels."""
        channels, height, width = feature_map(input_shape)
        return (channels, 1, 1) if self.axis == "spatial" else (1, height, width)
