"""Batch normalisation."""

from __future__ import annotations

from typing import ClassVar

from maam.spec.fields import Fraction, Positive, Shape, Size
from maam.spec.node import Node
from maam.spec.parameters import ONES, ZEROS, Parameter, Role
from maam.spec.primitives.shapes import feature_map


class BatchNorm2d(Node):
    """y = weight (x - mean) / sqrt(var + eps) + bias, a channel at a time, on (C, H, W).

    In training mode mean and (biased) variance are the batch's own, and the running ones move by
    running = (1 - momentum) running + momentum batch, with the unbiased variance: PyTorch's sense of momentum.
    """

    kind: ClassVar[str] = "batch_norm2d"
    num_features: Size
    eps: Positive = 1e-5
    momentum: Fraction = 0.1

    @property
    def in_channels_expected(self) -> int | None:
        """`num_features`."""
        return self.num_features

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return feature_map(input_shape, self.num_features)

    def own_parameters(self) -> tuple[Parameter, ...]:
        """weight, bias, running_mean, running_var, each (num_features,)."""
        shape = (self.num_features,)
        return (
            Parameter("weight", shape, Role.NORM_WEIGHT, ONES),
            Parameter("bias", shape, Role.NORM_BIAS, ZEROS),
            Parameter("running_mean", shape, Role.RUNNING_MEAN, ZEROS),
            Parameter("running_var", shape, Role.RUNNING_VAR, ONES),
        )
