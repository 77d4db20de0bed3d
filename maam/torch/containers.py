"""The containers of `maam.spec` as one PyTorch module: children under their canonical names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from maam import spec
from maam.errors import SpecError
from maam.torch.initialization import initialize
from maam.torch.primitives import WITH_ARRAYS, WITHOUT_ARRAYS, resize

torch.fx.wrap("resize")  # its control flow depends on sizes, which symbolic tracing does not know


def instantiate(node: spec.Node, **options: Any) -> nn.Module:
    """The module of a node; `options` are `device` and `dtype`."""
    if type(node) in WITH_ARRAYS:
        return WITH_ARRAYS[type(node)](node, **options)
    if type(node) in WITHOUT_ARRAYS:
        return WITHOUT_ARRAYS[type(node)](node)
    if not isinstance(node, (spec.Sequential, spec.Parallel)):
        raise SpecError(f"maam.torch has no primitive of kind {node.kind!r}")
    return Container(node, **options)


class Container(nn.Module):
    """A node that holds others; its forward runs the children and combines what they give.

    Attributes:
        spec: the node.
        rule: what the input must be; None inside another container, which has checked already.
    """

    rule: spec.InputRule | None = None
    spec: Any
    alpha: nn.Parameter
    weighting: nn.Module

    def __init__(self, node: spec.Sequential | spec.Parallel, **options: Any) -> None:
        super().__init__()
        self.spec = node
        self.kind = node.kind
        self.names = tuple(node.children)  # what forward runs; a subclass may add modules of its own
        for name, child in node.nodes.items():
            if hasattr(self, name):
                raise SpecError(f"layer name {name!r} is an attribute of a PyTorch module; choose another")
            self.add_module(name, instantiate(child, **options))
        for parameter in node.own_parameters():
            self.register_parameter(parameter.name, nn.Parameter(torch.empty(parameter.shape, **options)))
        initialize(self, node.own_parameters())

    def reset_parameters(self) -> None:
        """Draw all parameters anew and reset running statistics, here and below."""
        initialize(self, self.spec.own_parameters())
        for child in self.children():
            if callable(reset := getattr(child, "reset_parameters", None)):
                reset()

    def forward(self, x: Tensor) -> Tensor:
        """The node's function, as `maam.spec` defines it: (N, C, H, W) or (N, features) to the output's shape."""
        if self.rule is not None:
            self._check(self.rule, x)
        if self.kind == "parallel":
            return self._merge(x, [self._modules[name](x) for name in self.names])  # type: ignore[misc]
        y = x
        for name in self.names:
            y = self._modules[name](y)  # type: ignore[misc]
        if self.kind == "residual":
            return x + y
        if self.kind == "scale":
            return x * y
        if self.kind == "resize":
            return resize(y, x.shape[2] // self.spec.stride, x.shape[3] // self.spec.stride)
        return y

    def _get_name(self) -> str:
        return type(self.spec).__name__ if type(self) is Container else type(self).__name__

    def extra_repr(self) -> str:
        """How the branches are merged, where there are branches."""
        return f"merge={self.spec.merge!r}" if self.kind == "parallel" else ""

    def _merge(self, x: Tensor, outputs: list[Tensor]) -> Tensor:
        if self.spec.merge == "concat":
            return torch.cat(outputs, 1)  # (N, C1 + C2 + ..., H, W)
        if self.spec.merge == "stack":
            return torch.cat(outputs, 2)  # (N, C, H1 + H2 + ..., W)
        if self.spec.merge == "sum":
            return sum(outputs[1:], outputs[0])
        weights = self._weights(x, outputs)  # indexed, because symbolic tracing cannot iterate over it
        terms = [weights[index] * output for index, output in enumerate(outputs)]
        return sum(terms[1:], terms[0])

    def _weights(self, x: Tensor, outputs: list[Tensor]) -> Any:
        """One weight for each branch: a number, a scalar tensor, or a tensor (N, 1, ..., 1)."""
        if self.spec.merge == "weighted":
            return self.spec.weights
        if self.spec.merge == "softmax":
            return torch.softmax(self.alpha, 0).unbind(0)  # scalars: they promote no branch's dtype
        weights = self.weighting(x).to(outputs[0].dtype)  # (N, branches)
        return weights[(...,) + (None,) * (outputs[0].dim() - 1)].unbind(1)

    def _check(self, rule: spec.InputRule, x: Any) -> None:
        """Refuse a wrong input in the spec's words; by static metadata alone, so that compilers see through it."""
        if isinstance(x, torch.fx.Proxy):
            return
        own = _parameter_dtype(self)
        expected = None if own != x.dtype and _casts(x) else own
        accepted = rule.accepts(x.shape) and x.is_floating_point() and expected in (None, x.dtype)
        if not accepted:
            rule.check(tuple(x.shape), _name(x.dtype), None if expected is None else _name(expected))


def _casts(x: Tensor) -> bool:
    """Whether automatic mixed precision is on and converts `x` (it leaves float64 alone)."""
    kind = x.device.type  # the meta device has no such state to ask for
    return x.dtype != torch.float64 and kind != "meta" and torch.is_autocast_enabled(kind)


def _parameter_dtype(module: nn.Module) -> torch.dtype | None:
    for parameter in module.parameters():
        return parameter.dtype
    return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
