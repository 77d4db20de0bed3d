"""The base class of specs, and their JSON form."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from maam import _documents
from maam._documents import count_objects
from maam.errors import ArgumentError, ShapeError, SpecError
from maam.spec.fields import FrozenDict, Shape, describe
from maam.spec.parameters import Parameter

NodeT = TypeVar("NodeT", bound="Node")
MAX_DEPTH = 64
MAX_NODES = 10_000
MAX_LENGTH = 8 * 2**20
_NO_FUNCTION = frozenset({"init", "input_shape", "momentum", "name"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]{0,99}")
_RESERVED = frozenset(
    {"alpha", "weight", "bias", "running_mean", "running_var", "spec", "training", "cls_name", "module"}
)


class Node(BaseModel):
    """Base class of specs: frozen, validated descriptions of layers, without arrays.

    A subclass sets `kind`, its fields and `output_shape`, and if it has parameters or multiply-accumulates, also
    `own_parameters` and `own_macs`.

    Raises:
        SpecError: a field is unknown, missing, invalid or contradicts another one.

    Example:
        >>> from maam import spec
        >>> layer = spec.se(64)
        >>> isinstance(layer, spec.Node), layer.num_parameters
        (True, 580)
        >>> spec.parse_json(layer.to_json()) == layer
        True
    """

    model_config = ConfigDict(
        defer_build=True, frozen=True, extra="forbid", arbitrary_types_allowed=True, protected_namespaces=()
    )
    kind: ClassVar[str]
    kinds: ClassVar[dict[str, type[Node]]] = {}

    def __init__(self, /, *unnamed: Any, **fields: Any) -> None:
        if unnamed:
            names = ", ".join(f"{field}=" for field in type(self).model_fields)
            raise ArgumentError(f"{self.kind}: expected keyword arguments: {names}")
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
        if self.depth > MAX_DEPTH:  # deeper specs could exceed the recursion limit of Python
            raise ValueError(f"the layers are nested too deeply: expected at most {MAX_DEPTH} levels")
        return self

    @property
    def nodes(self) -> dict[str, Node]:
        """The child layers by name, in the order of execution."""
        return {}

    def with_nodes(self: NodeT, nodes: Mapping[str, Node]) -> NodeT:
        """Return the container with other child layers; a layer without children is returned unchanged."""
        return self

    @property
    def depth(self) -> int:
        """The number of levels of the tree; 1 for a layer without children."""
        return 1 + max((node.depth for node in self.nodes.values()), default=0)

    def walk(self, path: str = "") -> Iterator[tuple[str, Node]]:
        """Yield (path, node) for every layer of the tree, children before their container.

        The path is the canonical name, such as "agents.0.conv1"; the node itself has the path "".

        Example:
            >>> from maam import spec
            >>> [path for path, _ in spec.preset("cnn").walk()][:3]
            ['conv1', 'act1', 'pool1']
        """
        for name, child in self.nodes.items():
            yield from child.walk(join_path(path, name))
        yield path, self

    def at(self, path: str) -> Node:
        """Return the layer at a path such as "agents.0.conv1"; "" is the node itself.

        Raises:
            SpecError: there is no such layer.
        """
        node = self
        for name in filter(None, path.split(".")):
            if name not in node.nodes:
                raise SpecError(f"no layer {path!r} in this spec: {name!r} is not one of {list(node.nodes)}")
            node = node.nodes[name]
        return node

    def function_fields(self) -> dict[str, Any]:
        """Return the fields that determine the output in inference.

        They exclude children, `init` and `momentum`, which matter in training, and `name` and `input_shape`.
        """
        found = {field: getattr(self, field) for field in type(self).model_fields if field not in _NO_FUNCTION}
        return {field: value for field, value in found.items() if not isinstance(value, (Node, dict))}

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the output for one sample.

        Args:
            input_shape: (C, H, W) or (features,), without batch.

        Raises:
            ShapeError: the layer does not accept this shape.

        Example:
            >>> from maam import spec
            >>> spec.maam(64, pool=2).output_shape((64, 32, 32))
            (64, 16, 16)
        """
        raise NotImplementedError(self.kind)

    def child_shapes(self, input_shape: Shape) -> Iterator[tuple[str, Node, Shape]]:
        """Yield (name, child, input shape of the child) for each child."""
        shape = input_shape
        for name, child in self.nodes.items():
            yield name, child, shape
            shape = shape_below(name, child, shape)

    def summary(self, input_shape: Shape, path: str = "") -> Iterator[tuple[str, Node, Shape, Shape]]:
        """Yield (path, node, input shape, output shape) for every layer, children before their container.

        Raises:
            ShapeError: a layer does not accept its input shape.
        """
        output_shape = self.output_shape(input_shape)  # first, so that the path in an error is complete
        for name, child, shape in self.child_shapes(input_shape):
            yield from child.summary(shape, join_path(path, name))
        yield path, self, input_shape, output_shape

    @property
    def in_channels_expected(self) -> int | None:
        """The number of channels or features that the first layer expects; None for any number."""
        for child in self.nodes.values():
            if (channels := child.in_channels_expected) is not None:
                return channels
        return None

    def own_parameters(self) -> tuple[Parameter, ...]:
        """Return the parameters and buffers of this layer without its children, under local names."""
        return ()

    def own_macs(self, input_shape: Shape) -> int:
        """Return the multiply-accumulates of this layer without its children, for one sample."""
        return 0

    def parameters(self) -> tuple[Parameter, ...]:
        """Return all parameters and buffers under their canonical names, in the order of execution.

        Example:
            >>> from maam import spec
            >>> [(p.name, p.shape) for p in spec.se(16).parameters()][:2]
            [('fc1.weight', (1, 16, 1, 1)), ('fc1.bias', (1,))]
        """
        found: list[Parameter] = []
        for path, node in self.walk():
            found.extend(p.under(path) for p in node.own_parameters())
        return tuple(found)

    @property
    def num_parameters(self) -> int:
        """The number of trainable scalars. Running statistics do not count."""
        return sum(p.size for p in self.parameters() if p.trainable)

    def macs(self, input_shape: Shape) -> int:
        """Return the multiply-accumulates of all convolutions and linear layers, for one sample.

        Example:
            >>> from maam import spec
            >>> model = spec.preset("maam_digits")
            >>> model.macs(model.input_shape)
            962176
        """
        return sum(node.own_macs(shape) for _, node, shape, _ in self.summary(input_shape))

    def to_document(self) -> dict[str, Any]:
        """Return the spec as plain data for JSON, with all fields, so that new defaults do not change old files."""
        fields = {name: _plain(getattr(self, name)) for name in type(self).model_fields}
        return {"kind": self.kind, **fields}

    def to_json(self, indent: int | None = None) -> str:
        """Return the spec as JSON text; `maam.spec.parse_json` reads it."""
        return json.dumps(self.to_document(), indent=indent)

    def model_dump(self) -> dict[str, Any]:  # type: ignore[override]
        """Return `to_document()`, because pydantic's own method omits the kinds; it has none of pydantic's options."""
        return self.to_document()

    def model_dump_json(self, *, indent: int | None = None) -> str:  # type: ignore[override]
        """Return `to_json(indent)`; it has no other option of pydantic."""
        return self.to_json(indent)

    def replace(self: NodeT, **fields: Any) -> NodeT:
        """Return a validated copy with other values in some fields.

        Example:
            >>> from maam import spec
            >>> spec.Linear(in_features=64, out_features=10).replace(out_features=5).num_parameters
            325
        """
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **fields})

    def model_copy(self: NodeT, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> NodeT:
        """Return `replace(**update)`; pydantic's own method would skip the validation."""
        return self.replace(**(update or {}))

    def __deepcopy__(self: NodeT, memo: dict[int, Any] | None = None) -> NodeT:
        return self

    def __copy__(self: NodeT) -> NodeT:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return parse_json, (self.to_json(),)


def join_path(path: str, name: str) -> str:
    """Return the canonical name of a child or a parameter of the layer at `path`; the path of the model is ""."""
    return f"{path}.{name}" if path else name


def is_within(path: str, layers: Iterable[str]) -> bool:
    """Return whether a path is one of `layers`, or that of a layer or parameter inside one of them.

    Example:
        >>> is_within("reduce.conv.weight", ["reduce"]), is_within("reduce2.conv.weight", ["reduce"])
        (True, False)
    """
    return any(path == layer or path.startswith(f"{layer}.") for layer in layers)


def map_layers(node: Node, change: Callable[[Node], Node]) -> Node:
    """Return the spec with `change(layer)` in place of each layer without children; names and containers stay.

    Example:
        >>> from maam import spec
        >>> chain = spec.Sequential(children={"act": spec.Activation(function="relu"), "flatten": spec.Flatten()})
        >>> changed = map_layers(chain, lambda layer: spec.Identity() if layer.kind == "activation" else layer)
        >>> [layer.kind for layer in changed.nodes.values()]
        ['identity', 'flatten']
    """
    if not node.nodes:
        return change(node)
    return node.with_nodes({name: map_layers(child, change) for name, child in node.nodes.items()})


def with_layer(node: Node, path: str, layer: Node) -> Node:
    """Return the spec with another layer at a path; "" is the node itself.

    Example:
        >>> from maam import spec
        >>> changed = with_layer(spec.preset("maam_digits"), "reduce.act", spec.Activation(function="gelu"))
        >>> changed.at("reduce.act").function
        'gelu'
    """
    if not path:
        return layer
    name, _, rest = path.partition(".")
    return node.with_nodes({**node.nodes, name: with_layer(node.nodes[name], rest, layer)})


def shape_below(name: str, child: Node, shape: Shape) -> Shape:
    """Return `child.output_shape(shape)`; errors get `name` in front of the path."""
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


def parse_node(document: Any) -> Node:
    """Return a node from its JSON data, {"kind": ..., fields}; a node is returned unchanged.

    Raises:
        ValueError: the document is not an object, its kind is unknown, or a field is invalid.
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
    """Return `name`, after checking that it is valid in a parameter name.

    Each backend also reserves the names of its classes' attributes.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"layer name {str(name)[:60]!r}: expected letters, digits and underscores, at most 100")
    if name in _RESERVED or keyword.iskeyword(name):
        raise ValueError(f"layer name {name!r} is reserved; choose another")
    return name


def _parse_children(value: Any) -> FrozenDict:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected an object that maps names to layers, got {type(value).__name__}")
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


def parse_document(document: Any) -> Node:
    """Return a spec from the plain data that `Node.to_document` returns.

    Args:
        document: a dict with "kind" and the fields.

    Raises:
        SpecError: the kind or a field is unknown, a value is invalid, or the nesting is too deep.

    Example:
        >>> from maam import spec
        >>> spec.parse_document({"kind": "linear", "in_features": 64, "out_features": 10}).num_parameters
        650
    """
    try:
        count_objects(document, 2 * MAX_NODES)  # a container has an object of its children
        return parse_node(document)
    except SpecError:
        raise
    except ValueError as error:
        raise SpecError(f"spec: {error}") from None
    except RecursionError:
        raise SpecError("spec: the document is nested too deeply") from None


def parse_json(text: str | bytes) -> Node:
    """Return a spec from the text that `Node.to_json` writes.

    Args:
        text: JSON, as text or UTF-8 bytes, at most 8 MiB.

    Raises:
        SpecError: the text is not JSON, or not a valid spec.

    Example:
        >>> from maam import spec
        >>> spec.parse_json('{"kind": "flatten"}')
        Flatten()
    """
    if not isinstance(text, (str, bytes)):
        raise SpecError(f"spec: expected JSON text, got {type(text).__name__}; for plain data use parse_document")
    if len(text) > MAX_LENGTH:
        raise SpecError(f"spec: expected at most {MAX_LENGTH} characters of JSON, got {len(text)}")
    try:
        document = _documents.parse_json(text, unique=True)
    except RecursionError:
        raise SpecError("spec: the document is nested too deeply") from None
    except ValueError as error:
        text = str(error) if "nested too deeply" in str(error) else f"not a JSON document: {error}"
        raise SpecError(f"spec: {text}") from None
    return parse_document(document)
