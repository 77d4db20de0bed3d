"""The base of every spec: a frozen, validated description of a layer that any backend can build."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from maam.errors import ArgumentError, ShapeError, SpecError
from maam.spec.fields import FrozenDict, Shape, describe
from maam.spec.parameters import Parameter

NodeT = TypeVar("NodeT", bound="Node")
MAX_DEPTH = 64
_NO_FUNCTION = frozenset({"init", "input_shape", "momentum", "name"})


class Node(BaseModel):
    """A layer: what it computes, on which shapes, with which parameters. It holds no arrays.

    A subclass is a primitive: it sets `kind`, its fields, `output_shape`, and where they are not empty
    `own_parameters` and `own_macs`. Everything else follows.

    Raises:
        SpecError: a field is unknown, missing, of the wrong type or range, or contradicts another.
    """

    model_config = ConfigDict(
        defer_build=True, frozen=True, extra="forbid", arbitrary_types_allowed=True, protected_namespaces=()
    )
    kind: ClassVar[str]
    kinds: ClassVar[dict[str, type[Node]]] = {}

    def __init__(self, /, *unnamed: Any, **fields: Any) -> None:
        if unnamed:
            names = ", ".join(f"{field}=" for field in type(self).model_fields)
            raise ArgumentError(f"{self.kind}: name the fields: {names}")
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise SpecError(f"{self.kind}: {describe(error)}") from None

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "kind" in cls.__dict__:
            Node.kinds[cls.kind] = cls

    @model_validator(mode="after")
    def _depth_is_bounded(self: NodeT) -> NodeT:
        if self.depth > MAX_DEPTH:  # else a spec could be too deep for Python's stack when it is written or run
            raise ValueError(f"the layers are nested too deeply: expected at most {MAX_DEPTH} levels")
        return self

    # --- structure

    @property
    def nodes(self) -> dict[str, Node]:
        """The nodes directly inside this one, by name, in the order in which they run."""
        return {}

    def with_nodes(self: NodeT, nodes: Mapping[str, Node]) -> NodeT:
        """The same container around other nodes, given by name in running order; a layer that holds none is itself."""
        return self

    @property
    def depth(self) -> int:
        """The number of levels of the tree; 1 for a layer that holds no other."""
        return 1 + max((node.depth for node in self.nodes.values()), default=0)

    def walk(self, path: str = "") -> Iterator[tuple[str, Node]]:
        """Every (canonical path, node) of the tree, children before the node that holds them."""
        for name, child in self.nodes.items():
            yield from child.walk(f"{path}.{name}" if path else name)
        yield path, self

    def at(self, path: str) -> Node:
        """The node at a canonical path such as `agents.0.conv1` ('' is the node itself)."""
        node = self
        for name in filter(None, path.split(".")):
            if name not in node.nodes:
                raise SpecError(f"no layer {path!r} in this spec: {name!r} is not one of {list(node.nodes)}")
            node = node.nodes[name]
        return node

    def function_fields(self) -> dict[str, Any]:
        """The fields that decide what the layer itself computes in inference.

        Not the layers inside it, nor what is for training (`init`, `momentum`) or people (`name`, `input_shape`).
        """
        found = {field: getattr(self, field) for field in type(self).model_fields if field not in _NO_FUNCTION}
        return {field: value for field, value in found.items() if not isinstance(value, (Node, dict))}

    # --- shapes

    def output_shape(self, input_shape: Shape) -> Shape:
        """The output's shape for one sample of `input_shape`, both (C, H, W) or (features,), no batch.

        Raises:
            ShapeError: the layer cannot take this shape.
        """
        raise NotImplementedError(self.kind)

    def child_shapes(self, input_shape: Shape) -> Iterator[tuple[str, Node, Shape]]:
        """(name, child, its input shape) for each child, given this node's input shape (C, H, W)."""
        shape = input_shape
        for name, child in self.nodes.items():
            yield name, child, shape
            shape = shape_below(name, child, shape)

    def summary(self, input_shape: Shape, path: str = "") -> Iterator[tuple[str, Node, Shape, Shape]]:
        """(path, node, input shape, output shape) of every node, children before their container.

        Raises:
            ShapeError: a layer cannot take its shape.
        """
        output_shape = self.output_shape(input_shape)  # first, so that an error carries its whole path
        for name, child, shape in self.child_shapes(input_shape):
            yield from child.summary(shape, f"{path}.{name}" if path else name)
        yield path, self, input_shape, output_shape

    @property
    def in_channels_expected(self) -> int | None:
        """The channels (or features) that the first layer asks for; None where any number will do."""
        for child in self.nodes.values():
            if (channels := child.in_channels_expected) is not None:
                return channels
        return None

    # --- counts

    def own_parameters(self) -> tuple[Parameter, ...]:
        """The parameters and buffers of this node without its children, with local names."""
        return ()

    def own_macs(self, input_shape: Shape) -> int:
        """Multiply-accumulates of this node's own convolution or linear map, for one sample."""
        return 0

    def parameters(self) -> tuple[Parameter, ...]:
        """The table of parameters and buffers with canonical names, children first, in running order."""
        found: list[Parameter] = []
        for path, node in self.walk():
            found.extend(p.under(path) for p in node.own_parameters())
        return tuple(found)

    @property
    def num_parameters(self) -> int:
        """The number of trainable scalars (running statistics are buffers and do not count)."""
        return sum(p.size for p in self.parameters() if p.trainable)

    def macs(self, input_shape: Shape) -> int:
        """Multiply-accumulates of all convolutions and linear maps, for one sample of (C, H, W)."""
        return sum(node.own_macs(shape) for _, node, shape, _ in self.summary(input_shape))

    # --- documents

    def to_document(self) -> dict[str, Any]:
        """The spec as plain JSON data. Every field is written, so a later default changes no old file."""
        fields = {name: _plain(getattr(self, name)) for name in type(self).model_fields}
        return {"kind": self.kind, **fields}

    def to_json(self, indent: int | None = None) -> str:
        """The spec as a JSON text that `maam.spec.parse_json` reads back to an equal spec."""
        return json.dumps(self.to_document(), indent=indent)

    def model_dump(self, **options: Any) -> dict[str, Any]:
        """`to_document`: pydantic's own would leave the kinds out; `options` do nothing."""
        return self.to_document()

    def model_dump_json(self, *, indent: int | None = None, **options: Any) -> str:
        """`to_json`, for the same reason."""
        return self.to_json(indent)

    def replace(self: NodeT, **fields: Any) -> NodeT:
        """A copy with other values in some fields, validated anew."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **fields})

    def model_copy(self: NodeT, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> NodeT:
        """`replace`, where pydantic would write into this node, which is its own copy."""
        return self.replace(**(update or {}))

    def __deepcopy__(self: NodeT, memo: dict[int, Any] | None = None) -> NodeT:
        return self

    def __copy__(self: NodeT) -> NodeT:
        return self

    def __reduce__(self) -> tuple[Any, ...]:

        return parse_json, (self.to_json(),)


def shape_below(name: str, child: Node, shape: Shape) -> Shape:
    """`child.output_shape(shape)`, with `name` put before the path in any error."""
    try:
        return child.output_shape(shape)
    except ShapeError as error:
        raise error.below(name) from None


def _plain(value: Any) -> Any:
    if isinstance(value, Node):
        return value.to_document()
    if isinstance(value, FrozenDict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")
_RESERVED = frozenset(
    {"alpha", "weight", "bias", "running_mean", "running_var", "spec", "training", "cls_name", "module"}
)


def parse_node(document: Any) -> Node:
    """A node from its JSON data ({"kind": ..., fields}); a node is returned as it is.

    Raises:
        ValueError: the document is no object, has no known kind, or a field is wrong.
    """
    if isinstance(document, Node):
        return document
    if not isinstance(document, Mapping):
        raise ValueError(f"expected a layer (an object with a 'kind'), got {type(document).__name__}")
    fields = dict(document)
    if "kind" not in fields:
        raise ValueError("kind: required, but not given")
    kind = fields.pop("kind")
    if not isinstance(kind, str) or kind not in Node.kinds:
        raise ValueError(f"unknown kind {str(kind)[:60]!r}; known kinds: {', '.join(sorted(Node.kinds))}")
    if not all(isinstance(name, str) for name in fields):
        raise ValueError(f"{kind}: field names must be strings")
    return Node.kinds[kind](**fields)


def check_name(name: object) -> str:
    """`name`, where it can serve as part of a canonical parameter name.

    A framework refuses more when it builds: the names that its own classes have.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"layer name {str(name)[:60]!r}: expected letters, digits and underscores")
    if name in _RESERVED or keyword.iskeyword(name):
        raise ValueError(f"layer name {name!r} is reserved; choose another")
    return name


def _parse_children(value: Any) -> FrozenDict:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected an object of named layers, got {type(value).__name__}")
    children: dict[str, Any] = {}
    for name, child in value.items():
        check_name(name)
        try:
            children[name] = parse_node(child)
        except ValueError as error:
            raise ValueError(f"{name} > {error}") from None
    return FrozenDict(children)


if TYPE_CHECKING:
    Children = Mapping[str, Node]
else:
    Children = Annotated[FrozenDict, BeforeValidator(_parse_children)]
OptionalNode = Annotated[Node | None, BeforeValidator(lambda value: None if value is None else parse_node(value))]


MAX_LENGTH = 16 * 2**20


def parse_document(document: Any) -> Node:
    """A spec from plain JSON data.

    Raises:
        SpecError: unknown kind or field, wrong type or range, contradicting fields, or nesting without end.
    """
    try:
        return parse_node(document)
    except SpecError:
        raise
    except ValueError as error:
        raise SpecError(f"spec: {error}") from None
    except RecursionError:
        raise SpecError("spec: the document is nested too deeply") from None


def parse_json(text: str | bytes) -> Node:
    """A spec from the text that `Node.to_json` writes.

    Raises:
        SpecError: the text is not JSON, or not a valid spec.
    """
    if not isinstance(text, (str, bytes)):
        raise SpecError(f"spec: expected JSON text, got {type(text).__name__}; parse_document takes plain data")
    if len(text) > MAX_LENGTH:
        raise SpecError(f"spec: expected at most {MAX_LENGTH} characters of JSON, got {len(text)}")
    try:
        document = json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        raise SpecError("spec: the document is nested too deeply") from None
    except ValueError as error:
        raise SpecError(f"spec: not a JSON document: {error}") from None
    return parse_document(document)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object's pairs as a dict, for `object_pairs_hook`. Raises ValueError where a name stands twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name[:60]!r} stands twice in one object")
        found[name] = value
    return found
