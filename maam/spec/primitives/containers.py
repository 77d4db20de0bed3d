"""Containers of one chain of children: what they do with its result is all that tells them apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, TypeVar

from pydantic import Field, model_validator

from maam.errors import ShapeError, SpecError
from maam.spec.children import Children
from maam.spec.fields import Ordered, Shape, Size
from maam.spec.node import Node, shape_below
from maam.spec.primitives.shapes import feature_map

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
