"""The containers of `maam.spec` as one MindSpore cell: children under their canonical names."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import initializer
from mindspore.ops import constexpr

from maam import spec
from maam.errors import SpecError
from maam.mindspore.initialization import initializer_of
from maam.mindspore.primitives import WITH_ARRAYS, WITHOUT_ARRAYS, resize


def instantiate(node: spec.Node, **options: Any) -> nn.Cell:
    """The cell of a node; the one option is `dtype`."""
    if type(node) in WITH_ARRAYS:
        return WITH_ARRAYS[type(node)](node, **options)
    if type(node) in WITHOUT_ARRAYS:
        return WITHOUT_ARRAYS[type(node)](node)
    if not isinstance(node, (spec.Sequential, spec.Parallel)):
        raise SpecError(f"maam.mindspore has no primitive of kind {node.kind!r}")
    return Container(node, **options)


@constexpr  # type: ignore[untyped-decorator]
def _check(shape: Any, dtype: Any, rule: Any) -> None:
    spec.InputRule(*rule).check(tuple(shape), _name(dtype))


class Container(nn.SequentialCell):  # type: ignore[misc]
    """A node that holds others; its construct runs the children and combines what they give.

    It is a SequentialCell because automatic mixed precision replaces the children of such a cell, and of no
    other that holds a list.

    Attributes:
        spec: the node.
        rule: what the input must be; None inside another container, which has checked already.
    """

    def __init__(self, node: spec.Sequential | spec.Parallel, dtype: Any = mstype.float32) -> None:
        super().__init__(OrderedDict((name, instantiate(child, dtype=dtype)) for name, child in node.nodes.items()))
        self.spec = node
        self.rule: spec.InputRule | None = None
        self.kind = node.kind
        self.stride = getattr(node, "stride", 1)
        self.merge = getattr(node, "merge", "")
        self.weights = getattr(node, "weights", None)
        self.count = len(node.children)
        for parameter in node.own_parameters():
            initial = initializer(initializer_of(parameter), parameter.shape, dtype)
            setattr(self, parameter.name, Parameter(initial, name=parameter.name))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Check the input in Python, for the plain exception, before a graph is compiled or run."""
        if self.rule is not None and len(args) == 1 and isinstance(args[0], Tensor):
            expected = None if self._is_mixed() else _parameter_dtype(self)
            self.rule.check(tuple(args[0].shape), _name(args[0].dtype), expected)
        return super().__call__(*args, **kwargs)

    def construct(self, x: Tensor) -> Tensor:
        """The node's function, as `maam.spec` defines it: (N, C, H, W) or (N, features) to the output's shape."""
        if self.rule is not None:
            _check(ops.shape(x), ops.dtype(x), self.rule)
        if self.kind == "parallel":
            return self._merge(x)
        y = x
        for cell in self.cell_list:
            y = cell(y)
        if self.kind == "residual":
            return x + y
        if self.kind == "scale":
            return x * y
        if self.kind == "resize":
            return resize(y, x.shape[2] // self.stride, x.shape[3] // self.stride)
        return y

    def _merge(self, x: Tensor) -> Tensor:
        outputs = ()
        for index in range(self.count):
            outputs = outputs + (self.cell_list[index](x),)
        if self.merge == "concat":
            return ops.cat(outputs, 1)  # (N, C1 + C2 + ..., H, W)
        if self.merge != "sum":
            outputs = self._weighted(x, outputs)
        total = outputs[0]
        for index in range(1, self.count):
            total = total + outputs[index]
        return total

    def _weighted(self, x: Tensor, outputs: Any) -> Any:
        """Each branch times its weight: a number, a scalar tensor, or a tensor (N, 1, ..., 1)."""
        weights = self.weights
        if self.merge == "softmax":
            weights = ops.cast(ops.softmax(self.alpha, 0), outputs[0].dtype)
        if self.merge == "dynamic":
            values = ops.cast(self.cell_list[self.count](x), outputs[0].dtype)  # (N, branches)
            ones = (1,) * (len(outputs[0].shape) - 1)
            weights = values.transpose(1, 0).reshape((self.count, -1) + ones)  # (branches, N, 1, ..., 1)
        terms = ()
        for index in range(self.count):
            terms = terms + (weights[index] * outputs[index],)
        return terms

    def __repr__(self) -> str:
        name = type(self.spec).__name__ if type(self) is Container else type(self).__name__
        return f"{name}{super().__repr__().removeprefix(type(self).__name__)}"

    def extend_repr(self) -> str:
        """How the branches are merged, where there are branches."""
        return f"merge={self.merge!r}" if self.kind == "parallel" else ""

    def _is_mixed(self) -> bool:
        """Whether automatic mixed precision chooses the dtypes that this cell computes in."""
        return bool(getattr(self, "_amp_level", "") or getattr(self, "fp16", False) or getattr(self, "bf16", False))


def _parameter_dtype(cell: nn.Cell) -> str | None:
    for parameter in cell.get_parameters():
        return _name(parameter.dtype)
    return None


def _name(dtype: Any) -> str:
    return str(dtype).lower()
