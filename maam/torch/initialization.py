"""Initial values for arrays: the spec's distributions, drawn by PyTorch's generator."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from maam.spec import Parameter


def initialize(module: nn.Module, parameters: Iterable[Parameter]) -> None:
    """Draw the arrays that `module` itself owns, by their local names in the table."""
    for parameter in parameters:
        distribution, value = parameter.init
        array = getattr(module, parameter.name)
        if distribution == "constant":
            nn.init.constant_(array, value)
        elif distribution == "uniform":
            nn.init.uniform_(array, -value, value)
        else:
            nn.init.normal_(array, 0.0, value)
