"""The field that holds child nodes: reads nodes or their documents, checks names, freezes the result."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from maam.spec.fields import FrozenDict
from maam.spec.node import Node

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
