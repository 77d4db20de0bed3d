"""Elementwise activations, and softmax over features."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from maam.spec.fields import Real, Shape
from maam.spec.node import Node

ElementwiseName = Literal[
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "gelu",
    "silu",
    "hard_swish",
    "sigmoid",
    "hard_sigmoid",
    "tanh",
    "identity",
]
ActivationName = Literal[ElementwiseName, "softmax"]
"""relu6: min(max(x, 0), 6); elu with alpha 1; gelu: x Phi(x) with the exact normal distribution function;
silu: x sigmoid(x); hard_sigmoid: relu6(x + 3) / 6; hard_swish: x hard_sigmoid(x); softmax over axis 1."""


class Activation(Node):
    """An activation by name; the output has the input's shape. `negative_slope` belongs to leaky_relu alone."""

    kind: ClassVar[str] = "activation"
    function: ActivationName
    negative_slope: Real = 0.01

    def function_fields(self) -> dict[str, Any]:
        """The slope for leaky_relu alone."""
        found = super().function_fields()
        return found if self.function == "leaky_relu" else found | {"negative_slope": None}

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape
