"""Initial values for arrays: the spec's distributions, drawn by MindSpore's generator."""

from __future__ import annotations

from mindspore.common.initializer import Constant, Initializer, Normal, Uniform

from maam.spec import Node, Parameter


def initializer_of(parameter: Parameter) -> Initializer:
    """MindSpore's initializer of the distribution that the table gives."""
    distribution, value = parameter.init
    if distribution == "constant":
        return Constant(value)
    return Uniform(value) if distribution == "uniform" else Normal(value)


def weight_and_bias(node: Node) -> dict[str, Initializer]:
    """The arguments `weight_init` and `bias_init` of a convolution or a dense layer."""
    return {f"{parameter.name}_init": initializer_of(parameter) for parameter in node.own_parameters()}
