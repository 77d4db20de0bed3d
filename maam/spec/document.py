"""Specs as JSON texts."""

from __future__ import annotations

import json
from typing import Any

from maam.errors import SpecError
from maam.spec.children import parse_node
from maam.spec.node import Node

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
