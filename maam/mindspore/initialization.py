"""Initial values for arrays: the spec's distributions, drawn by MindSpore's generator."""

from __future__ import annotations

from typing import Any

from mindspore.common import initializer as native

from maam.spec import Node, Parameter


class _Readable:
    """An initializer that stands in a cell's repr by name, where MindSpore's own stands by its address."""

    def __init__(self, value: float) -> None:
        super().__init__(value)  # type: ignore[call-arg]
        self.value = value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value:.4g})"


class Constant(_Readable, native.Constant):
    """The given value everywhere."""


class Uniform(_Readable, native.Uniform):
    """U(-value, value)."""


class Normal(_Readable, native.Normal):
    """N(0, value squared)."""


_CLASSES = {"constant": Constant, "uniform": Uniform, "normal": Normal}


def initializer_of(parameter: Parameter) -> Any:
    """MindSpore's initializer of the distribution that the table gives."""
    return _CLASSES[parameter.init.distribution](parameter.init.value)


def weight_and_bias(node: Node) -> dict[str, Any]:
    """The arguments `weight_init` and `bias_init` of a convolution or a dense layer."""
    return {f"{parameter.name}_init": initializer_of(parameter) for parameter in node.own_parameters()}
