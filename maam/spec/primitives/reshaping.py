"""Layers without arithmetic: flatten, dropout, identity."""

from __future__ import annotations

import math
from typing import ClassVar

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


class Dropout(Node):
    """In training mode sets each value to 0 with probability `p` and divides the rest by 1 - p."""

    kind: ClassVar[str] = "dropout"
    p: Probability

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape
