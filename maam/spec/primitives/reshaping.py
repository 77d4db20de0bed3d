"""Layers without arithmetic: flatten, unflatten, dropout, identity."""

from __future__ import annotations

import math
from typing import ClassVar

from maam.errors import ShapeError
from maam.spec.fields import Probability, Shape
from maam.spec.node import Node


class Identity(Node):
    """y = x."""

    kind: ClassVar[str] = "identity"

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape


class Flatten(Node):
    """(C, H, W) to (C * H * W,), channels slowest."""

    kind: ClassVar[str] = "flatten"

    def output_shape(self, input_shape: Shape) -> Shape:
        """(C * H * W,)."""
        return (math.prod(input_shape),)


class Unflatten(Node):
    """(C,) to (C, 1, 1)."""

    kind: ClassVar[str] = "unflatten"

    def output_shape(self, input_shape: Shape) -> Shape:
        """(C, 1, 1)."""
        if len(input_shape) != 1:
            raise ShapeError(f"expected a vector (C,), got shape {input_shape}")
        return input_shape[0], 1, 1


class Dropout(Node):
    """In training mode sets each value to 0 with probability `p` and divides the rest by 1 - p."""

    kind: ClassVar[str] = "dropout"
    p: Probability

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape
