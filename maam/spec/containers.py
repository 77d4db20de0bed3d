"""Containers: layers made of named layers. They run a chain (Sequential and its subclasses) or branches (Parallel)."""

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
    """Chain of layers: f_n(... f_1(x)).

    `children` maps names to layers, in the order of execution. The names are part of the parameter names.

    Example:
        >>> from maam import spec
        >>> conv = spec.Conv2d(in_channels=3, out_channels=8, kernel_size=3, padding=1)
        >>> block = spec.Sequential(children={"conv": conv, "act": spec.Activation(function="relu")})
        >>> [p.name for p in block.parameters()]
        ['conv.weight', 'conv.bias']
    """

    kind: ClassVar[str] = "sequential"
    children: Children

    @property
    def nodes(self) -> dict[str, Node]:
        """The children by name."""
        return dict(self.children)

    def with_nodes(self: SequentialT, nodes: Mapping[str, Node]) -> SequentialT:
        """Return the container with other children."""
        return self.replace(children=nodes)

    def chain_shape(self, input_shape: Shape) -> Shape:
        """Return the shape after the last child."""
        shape = input_shape
        for name, child in self.children.items():
            shape = shape_below(name, child, shape)
        return shape

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape after the last child."""
        return self.chain_shape(input_shape)


class Residual(Sequential):
    """Residual connection: x + f(x), where f is the chain of children and keeps the shape.

    Example:
        >>> from maam import spec
        >>> conv = spec.Conv2d(in_channels=8, out_channels=8, kernel_size=3, padding=1)
        >>> spec.Residual(children={"conv": conv}).output_shape((8, 32, 32))
        (8, 32, 32)
    """

    kind: ClassVar[str] = "residual"

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input shape."""
        if (shape := self.chain_shape(input_shape)) != input_shape:
            raise ShapeError(
                "a residual adds the output of its layers to its input: "
                f"expected an output of shape {input_shape}, got {shape}"
            )
        return shape


class Scale(Sequential):
    """Gate: x * f(x), where f is the chain of children. f(x) has the shape of x, or size 1 along some axes.

    Example:
        >>> from maam import spec
        >>> gate = {"pool": spec.GlobalPool(), "gate": spec.Activation(function="sigmoid")}
        >>> spec.Scale(children=gate).output_shape((8, 32, 32))
        (8, 32, 32)
    """

    kind: ClassVar[str] = "scale"

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input shape."""
        gate = self.chain_shape(input_shape)
        fits = len(gate) == len(input_shape) and all(g in (1, s) for g, s in zip(gate, input_shape, strict=True))
        if not fits:
            raise ShapeError(f"a gate of shape {gate} does not broadcast over a map of shape {input_shape}")
        return input_shape


class Resize(Sequential):
    """Chain of layers whose output is resized to (H // stride, W // stride) of the input (C, H, W).

    The interpolation is nearest neighbor with the source index floor(i * in / out).

    Example:
        >>> from maam import spec
        >>> pool = {"pool": spec.AvgPool2d(kernel_size=4)}
        >>> spec.Resize(children=pool, stride=1).output_shape((8, 32, 32))
        (8, 32, 32)
    """

    kind: ClassVar[str] = "resize"
    stride: Size = 1

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (C', H // stride, W // stride)."""
        _, height, width = feature_map(input_shape)
        channels, *_ = feature_map(self.chain_shape(input_shape))
        if min(height, width) < self.stride:
            raise ShapeError(
                f"a map of {height}x{width} is too small for a stride of {self.stride}; use a larger input"
            )
        return channels, height // self.stride, width // self.stride


class Model(Sequential):
    """Network: a chain of layers with a name and an input shape (C, H, W).

    Raises:
        SpecError: the layers do not accept `input_shape`.

    Example:
        >>> from maam import spec
        >>> layers = {"flatten": spec.Flatten(), "fc": spec.Linear(in_features=784, out_features=10)}
        >>> model = spec.Model(name="linear", input_shape=(1, 28, 28), children=layers)
        >>> model.num_classes, model.num_parameters
        (10, 7850)
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
        """Return the names of the children and their output shapes at `input_shape`, in the order of execution."""
        return {path: out for path, _, _, out in self.summary(self.input_shape) if path in self.children}

    @property
    def num_classes(self) -> int:
        """The first size of the output: the number of classes of a classifier."""
        return self.output_shape(self.input_shape)[0]

    def until(self, stage: str) -> Model:
        """Return the model up to and including `stage`, for feature extraction. Parameters keep their names.

        Args:
            stage: the name of a child, or a path such as "backbone.stage3" to a child of a child.

        Raises:
            SpecError: there is no such stage, or the path leads into a layer that is not a chain.

        Example:
            >>> from maam import spec
            >>> spec.preset("mafc_v3_small").until("backbone.stage3").output_shape((3, 224, 224))
            (48, 14, 14)
        """
        names = stage.split(".") if isinstance(stage, str) else [""]
        parent = _chain_at(self, names[:-1])
        if parent is None or names[-1] not in parent.children:
            raise SpecError(f"no stage {stage!r} in {self.name!r}; {_known_stages(self, names)}")
        return _cut(self, names)


_CHAINS = ("sequential", "model")
"""Kinds that can be cut after any child. A gate or a residual cannot: it combines the last output with its input."""


def _chain_at(node: Node, names: list[str]) -> Sequential | None:
    """Return the chain at the path `names`, or None if the path leads through other layers."""
    if not isinstance(node, Sequential) or node.kind not in _CHAINS:
        return None
    if not names:
        return node
    return _chain_at(node.children[names[0]], names[1:]) if names[0] in node.children else None


def _cut(chain: SequentialT, names: list[str]) -> SequentialT:
    """Return `chain` up to the child names[0], which is cut in the same way at names[1:]."""
    order = list(chain.children)
    children = {name: chain.children[name] for name in order[: order.index(names[0]) + 1]}
    if isinstance(child := children[names[0]], Sequential) and names[1:]:
        children[names[0]] = _cut(child, names[1:])
    return chain.replace(children=children)


def _known_stages(model: Model, names: list[str]) -> str:
    """Return, for a message, the stages in the innermost chain on the path `names`, or all stages."""
    for count in range(len(names) - 1, 0, -1):
        if chain := _chain_at(model, names[:count]):
            path = ".".join(names[:count])
            return f"the stages in {path!r}: {', '.join(f'{path}.{name}' for name in chain.children)}"
    inner = [f"{path}.{name}" for path in model.children for name in getattr(_chain_at(model, [path]), "children", ())]
    return f"its stages: {', '.join(model.children)}" + (f"; in these: {', '.join(inner)}" if inner else "")


Merge = Literal["sum", "concat", "stack", "weighted", "softmax", "dynamic"]
"""How to combine the outputs A_i of branches:

sum: sum_i A_i, broadcast along axes of size 1.
concat: concatenate along the channels.
stack: concatenate along the height.
weighted: sum_i weights[i] * A_i, with constant weights.
softmax: sum_i softmax(alpha)_i * A_i, with a learnable vector alpha (MAAM, equation 2).
dynamic: sum_i g(x)_i * A_i, where the layer `weighting` computes g(x), one weight for each branch."""


class Parallel(Node):
    """Parallel branches with the same input; `merge` determines how their outputs are combined.

    Args:
        children: the branches by name.
        merge: "sum", "concat" (channels), "stack" (height), "weighted", "softmax" or "dynamic".
        weights: one constant for each branch; only with merge "weighted".
        weighting: a layer that computes one weight for each branch; only with merge "dynamic".

    Parameters: alpha (number of branches,) with merge "softmax".

    Example:
        >>> from maam import spec
        >>> branches = {"a": spec.Identity(), "b": spec.MaxPool2d(kernel_size=1)}
        >>> spec.Parallel(children=branches, merge="concat").output_shape((8, 32, 32))
        (16, 32, 32)
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
            raise ValueError("weights: required with merge 'weighted', and not allowed with others")
        if self.weights is not None and len(self.weights) != len(self.children):
            raise ValueError(
                f"weights: expected one for each of {len(self.children)} branches, got {len(self.weights)}"
            )
        if (self.weighting is not None) != (self.merge == "dynamic"):
            raise ValueError("weighting: required with merge 'dynamic', and not allowed with others")
        if "weighting" in self.children:
            raise ValueError("children: the name 'weighting' is reserved; use another")
        return self

    @property
    def nodes(self) -> dict[str, Node]:
        """The branches by name, and `weighting` if it is set."""
        extra = {} if self.weighting is None else {"weighting": self.weighting}
        return {**self.children, **extra}

    def with_nodes(self, nodes: Mapping[str, Node]) -> Parallel:
        """Return the container with other branches; a node named "weighting" replaces `weighting`."""
        children = {name: node for name, node in nodes.items() if name != "weighting"}
        return self.replace(children=children, weighting=nodes.get("weighting"))

    def child_shapes(self, input_shape: Shape) -> Iterator[tuple[str, Node, Shape]]:
        """Yield each child with the input shape."""
        for name, child in self.nodes.items():
            yield name, child, input_shape

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the branches; "concat" adds up the channels, "stack" the heights."""
        shapes = {name: shape_below(name, child, input_shape) for name, child in self.children.items()}
        if self.weighting is not None:
            self._check_weighting(shape_below("weighting", self.weighting, input_shape))
        first = next(iter(shapes.values()))
        if self.merge in ("concat", "stack"):
            return joined_shape(list(shapes.values()), 0 if self.merge == "concat" else 1)
        if self.merge == "sum" and len({len(shape) for shape in shapes.values()}) == 1:
            return broadcast_shape(list(shapes.values()))
        if len(set(shapes.values())) > 1:
            raise ShapeError(f"merge {self.merge!r}: expected branches of the same output shape, got {shapes}")
        return first

    def _check_weighting(self, shape: Shape) -> None:
        if shape != (len(self.children),):
            raise ShapeError(f"weighting: expected an output of shape ({len(self.children)},), got {shape}")

    def own_parameters(self) -> tuple[Parameter, ...]:
        """Return alpha, one learnable scalar for each branch, if the merge is "softmax"."""
        if self.merge != "softmax":
            return ()
        return (Parameter("alpha", (len(self.children),), Role.FUSION, ZEROS),)


def joined_shape(shapes: list[Shape], axis: int) -> Shape:
    """Return the shape of maps that are concatenated along an axis.

    Raises:
        ShapeError: the shapes differ along another axis.
    """
    others = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    if len(others) > 1 or axis >= len(shapes[0]):
        raise ShapeError(f"branches cannot be concatenated along axis {axis} of (C, H, W): {shapes}")
    return (*shapes[0][:axis], sum(shape[axis] for shape in shapes), *shapes[0][axis + 1 :])


def broadcast_shape(shapes: list[Shape]) -> Shape:
    """Return the shape of maps that are combined element by element; sizes of 1 broadcast.

    Raises:
        ShapeError: the shapes do not broadcast.
    """
    sizes = [set(axis) - {1} for axis in zip(*shapes, strict=True)]
    if any(len(size) > 1 for size in sizes):
        raise ShapeError(f"expected maps of the same shape, or of size 1 along an axis, got {shapes}")
    return tuple(size.pop() if size else 1 for size in sizes)
