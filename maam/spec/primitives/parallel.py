"""Parallel branches over one input, and the ways to merge them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import model_validator

from maam.errors import ShapeError
from maam.spec.children import Children, OptionalNode
from maam.spec.fields import Ordered, Real, Shape
from maam.spec.node import Node, shape_below
from maam.spec.parameters import ZEROS, Parameter, Role

Merge = Literal["sum", "concat", "stack", "weighted", "softmax", "dynamic"]
"""How branch outputs A_i become one:

sum: sum_i A_i, broadcast where a size is 1; concat: along the channels; stack: along the height;
weighted: sum_i weights[i] A_i with constants;
softmax: sum_i softmax(alpha)_i A_i with the learnable vector alpha (MAAM, equation 2);
dynamic: sum_i g(x)_i A_i with g the `weighting` node, which maps the input to one weight for each branch."""


class Parallel(Node):
    """Children that all take the same input; `merge` makes one map of their outputs.

    Parameters: alpha (number of branches,) where merge is softmax; those of `weighting`, under that name.
    """

    kind: ClassVar[str] = "parallel"
    children: Children
    merge: Merge = "sum"
    weights: Annotated[tuple[Real, ...], Ordered] | None = None
    weighting: OptionalNode = None

    @model_validator(mode="after")
    def _merge_is_consistent(self) -> Parallel:
        if not self.children:
            raise ValueError("children: expected at least one branch")
        if (self.weights is not None) != (self.merge == "weighted"):
            raise ValueError("weights: they belong to merge 'weighted', which needs them")
        if self.weights is not None and len(self.weights) != len(self.children):
            raise ValueError(
                f"weights: expected one for each of {len(self.children)} branches, got {len(self.weights)}"
            )
        if (self.weighting is not None) != (self.merge == "dynamic"):
            raise ValueError("weighting: it belongs to merge 'dynamic', which needs it")
        if "weighting" in self.children:
            raise ValueError("children: the name 'weighting' is taken")
        return self

    @property
    def nodes(self) -> dict[str, Node]:
        """The branches by name, then `weighting` where there is one."""
        extra = {} if self.weighting is None else {"weighting": self.weighting}
        return {**self.children, **extra}

    def with_nodes(self, nodes: Mapping[str, Node]) -> Parallel:
        """The same merge of other branches; a node named `weighting` takes the place of that one."""
        children = {name: node for name, node in nodes.items() if name != "weighting"}
        return self.replace(children=children, weighting=nodes.get("weighting"))

    def child_shapes(self, input_shape: Shape) -> Iterator[tuple[str, Node, Shape]]:
        """Every child takes the input itself."""
        for name, child in self.nodes.items():
            yield name, child, input_shape

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape that all branches share; for concat the channels add up, for stack the heights."""
        shapes = {name: shape_below(name, child, input_shape) for name, child in self.children.items()}
        if self.weighting is not None:
            self._check_weighting(shape_below("weighting", self.weighting, input_shape))
        first = next(iter(shapes.values()))
        if self.merge in ("concat", "stack"):
            return _joined(list(shapes.values()), 0 if self.merge == "concat" else 1)
        if self.merge == "sum" and len({len(shape) for shape in shapes.values()}) == 1:
            return _broadcast(list(shapes.values()))
        if len(set(shapes.values())) > 1:
            raise ShapeError(f"merge {self.merge!r} needs branches of one shape, got {shapes}")
        return first

    def _check_weighting(self, shape: Shape) -> None:
        if shape != (len(self.children),):
            raise ShapeError(f"weighting must give {len(self.children)} values, got shape {shape}")

    def own_parameters(self) -> tuple[Parameter, ...]:
        """Alpha, one learnable scalar a branch, where merge is softmax."""
        if self.merge != "softmax":
            return ()
        return (Parameter("alpha", (len(self.children),), Role.FUSION, ZEROS),)


def _joined(shapes: list[Shape], axis: int) -> Shape:
    others = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    if len(others) > 1 or axis >= len(shapes[0]):
        raise ShapeError(f"branches cannot be joined along axis {axis} of (C, H, W): {shapes}")
    return (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])


def _broadcast(shapes: list[Shape]) -> Shape:
    sizes = [set(axis) - {1} for axis in zip(*shapes, strict=True)]
    if any(len(size) > 1 for size in sizes):
        raise ShapeError(f"merge 'sum' needs branches of one shape, or of size 1 along an axis, got {shapes}")
    return tuple(size.pop() if size else 1 for size in sizes)
