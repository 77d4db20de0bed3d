"""Linear maps of vectors, and the recurrent layer of the RNN baseline."""

from __future__ import annotations

import math
from typing import ClassVar

from maam.errors import ShapeError
from maam.spec.fields import Flag, Shape, Size
from maam.spec.node import Node
from maam.spec.parameters import Init, Parameter, Role, WeightInit, weight_init
from maam.spec.primitives.shapes import feature_map


class Linear(Node):
    """y = W x + b: (in_features,) to (out_features,). Parameters: weight (out_features, in_features), bias."""

    kind: ClassVar[str] = "linear"
    in_features: Size
    out_features: Size
    bias: Flag = True
    init: WeightInit = "fan_in_uniform"

    @property
    def in_channels_expected(self) -> int | None:
        """`in_features`."""
        return self.in_features

    def output_shape(self, input_shape: Shape) -> Shape:
        """(out_features,)."""
        if input_shape != (self.in_features,):
            raise ShapeError(f"expected a vector of {self.in_features} features, got shape {input_shape}")
        return (self.out_features,)

    def own_parameters(self) -> tuple[Parameter, ...]:
        """The weight, and the bias where there is one."""
        shape = (self.out_features, self.in_features)
        init = weight_init(self.init, self.in_features, self.out_features)
        weight = Parameter("weight", shape, Role.WEIGHT, init)
        bound = Init("uniform", 1 / math.sqrt(self.in_features))
        bias = Parameter("bias", (self.out_features,), Role.BIAS, bound)
        return (weight, bias) if self.bias else (weight,)

    def own_macs(self, input_shape: Shape) -> int:
        """in_features times out_features."""
        return self.in_features * self.out_features


class RNN(Node):
    """A tanh recurrent layer over the rows of a map, top to bottom: (C, H, W) to the last state (hidden_size,).

    Row t is x_t = map[:, t, :] flattened to input_size = C * W values;
    h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), h_0 = 0.
    """

    kind: ClassVar[str] = "rnn"
    input_size: Size
    hidden_size: Size

    def output_shape(self, input_shape: Shape) -> Shape:
        """(hidden_size,)."""
        channels, _, width = feature_map(input_shape)
        if channels * width != self.input_size:
            raise ShapeError(f"expected rows of {self.input_size} values, got {channels} x {width}")
        return (self.hidden_size,)

    def own_parameters(self) -> tuple[Parameter, ...]:
        """The input and the recurrent weight, and a bias for each, as PyTorch names them."""
        init = Init("uniform", 1 / math.sqrt(self.hidden_size))
        hidden = self.hidden_size
        return (
            Parameter("weight_ih_l0", (hidden, self.input_size), Role.RECURRENT, init),
            Parameter("weight_hh_l0", (hidden, hidden), Role.RECURRENT, init),
            Parameter("bias_ih_l0", (hidden,), Role.RECURRENT, init),
            Parameter("bias_hh_l0", (hidden,), Role.RECURRENT, init),
        )

    def own_macs(self, input_shape: Shape) -> int:
        """Both matrices, once a row."""
        return input_shape[1] * self.hidden_size * (self.input_size + self.hidden_size)
