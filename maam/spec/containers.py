"""Containers of one chain of children: what they do with its result is all that tells them apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import Field, model_validator

from maam.errors import ShapeError, SpecError
from maam.spec.fields import Ordered, Real, Shape, Size
from maam.spec.node import Children, Node, OptionalNode, shape_below
from maam.spec.parameters import ZEROS, Parameter, Role
from maam.spec.primitives import feature_map

SequentialT = TypeVar("SequentialT", bound="Sequential")


class Sequential(Node):
    """f_n(... f_1(x)). Children are named, in running order, and their parameters carry these names."""

    kind: ClassVar[str] = "sequential"
    children: Children

    @property
    def nodes(self) -> dict[str, Node]:
        """The children by name."""
        return dict(self.children)

    def with_nodes(self: SequentialT, nodes: Mapping[str, Node]) -> SequentialT:
        """The same container around another chain."""
        return self.replace(children=nodes)

    def chain_shape(self, input_shape: Shape) -> Shape:
        """The shape after the last child."""
        shape = input_shape
        for name, child in self.children.items():
            shape = shape_below(name, child, shape)
        return shape

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape after the last child."""
        return self.chain_shape(input_shape)


class Residual(Sequential):
    """x + f(x), f the chain of children, which keeps the shape."""

    kind: ClassVar[str] = "residual"

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        if (shape := self.chain_shape(input_shape)) != input_shape:
            raise ShapeError(f"a residual adds its result to its input: {shape} does not fit {input_shape}")
        return shape


class Scale(Sequential):
    """x * f(x), f the chain of children: a gate. f(x) has the shape of x, or 1 along some of its axes."""

    kind: ClassVar[str] = "scale"

    def output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        gate = self.chain_shape(input_shape)
        fits = len(gate) == len(input_shape) and all(g in (1, s) for g, s in zip(gate, input_shape, strict=True))
        if not fits:
            raise ShapeError(f"a gate of shape {gate} does not broadcast over a map of shape {input_shape}")
        return input_shape


class Resize(Sequential):
    """f(x) resized to (H // stride, W // stride), x being (C, H, W): nearest, source index floor(i * in / out)."""

    kind: ClassVar[str] = "resize"
    stride: Size = 1

    def output_shape(self, input_shape: Shape) -> Shape:
        """(C', H // stride, W // stride)."""
        _, height, width = feature_map(input_shape)
        channels, *_ = feature_map(self.chain_shape(input_shape))
        if min(height, width) < self.stride:
            raise ShapeError(f"a map of {height}x{width} is too small for a stride of {self.stride}")
        return channels, height // self.stride, width // self.stride


class Model(Sequential):
    """A whole network: a chain with the input shape that it was made for and a name for people to read.

    Raises:
        SpecError: the chain does not accept `input_shape`.
    """

    kind: ClassVar[str] = "model"
    name: Annotated[str, Field(max_length=200)]
    input_shape: Annotated[tuple[Size, Size, Size], Ordered]

    @model_validator(mode="after")
    def _accepts_input_shape(self) -> Model:
        try:
            self.chain_shape(self.input_shape)
        except ShapeError as error:
            raise ValueError(f"input_shape {self.input_shape} does not fit the layers: {error}") from None
        return self

    def stages(self) -> dict[str, Shape]:
        """The named stages, in order, with the shape of each one's output at `input_shape`."""
        return {path: out for path, _, _, out in self.summary(self.input_shape) if path in self.children}

    @property
    def num_classes(self) -> int:
        """The length of the logits (of whatever comes last, for a model cut by `until`)."""
        return self.output_shape(self.input_shape)[0]

    def until(self, stage: str) -> Model:
        """The model cut after `stage`, for feature extraction; parameters keep their canonical names.

        A path such as "backbone.stage3" cuts within a stage that is a chain itself.

        Raises:
            SpecError: there is no such stage, or the path leads into a layer that is no chain.
        """
        names = stage.split(".") if isinstance(stage, str) else [""]
        parent = _chain_at(self, names[:-1])
        if parent is None or names[-1] not in parent.children:
            raise SpecError(f"no stage {stage!r} in {self.name!r}; {_stages_near(self, names)}")
        return _cut(self, names)


_CHAINS = ("sequential", "model")
"""Kinds whose output is that of the last child, and so may be that of any: not so for a gate or a residual."""


def _chain_at(node: Node, names: list[str]) -> Sequential | None:
    """The chain to which `names` lead through chains alone; None where they do not."""
    if not isinstance(node, Sequential) or node.kind not in _CHAINS:
        return None
    if not names:
        return node
    return _chain_at(node.children[names[0]], names[1:]) if names[0] in node.children else None


def _cut(chain: SequentialT, names: list[str]) -> SequentialT:
    """`chain` up to the child of the first name, which is cut in the same way by the other names."""
    order = list(chain.children)
    children = {name: chain.children[name] for name in order[: order.index(names[0]) + 1]}
    if isinstance(child := children[names[0]], Sequential) and names[1:]:
        children[names[0]] = _cut(child, names[1:])
    return chain.replace(children=children)


def _stages_near(model: Model, names: list[str]) -> str:
    """What `until` takes: the paths in the innermost chain that `names` reach, or all stages and the paths in these."""
    for count in range(len(names) - 1, 0, -1):
        if chain := _chain_at(model, names[:count]):
            path = ".".join(names[:count])
            return f"in {path!r} there are {', '.join(f'{path}.{name}' for name in chain.children)}"
    inner = [f"{path}.{name}" for path in model.children for name in getattr(_chain_at(model, [path]), "children", ())]
    return f"its stages: {', '.join(model.children)}" + (f"; and in these: {', '.join(inner)}" if inner else "")


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
