"""JSON and TOML from files, with bounds on nesting that are checked before a recursive parser or validator runs.

The limit of Python on recursion does not help: MindSpore raises it when it is imported, so far that a document that is
nested a thousand levels deep overflows the stack of the process.
"""

from __future__ import annotations

import json
import re
from typing import Any

MAX_NESTING = 200
"""The most levels of lists and objects. A spec has two for each level of its layers, of which it allows 64."""
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def parse_json(text: str | bytes, *, unique: bool = False) -> Any:
    """Return the data in a JSON document.

    Args:
        text: the document; bytes are UTF-8.
        unique: whether a name that occurs twice in an object is an error.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or has a number of too many digits.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    check_brackets(text)
    return json.loads(text, object_pairs_hook=_unique if unique else None)


def check_brackets(text: str) -> None:
    """Raise `ValueError` if the brackets in a text, outside quotes, are nested more than `MAX_NESTING` levels deep."""
    depth = 0
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token in "[{":
            depth += 1
            if depth > MAX_NESTING:
                raise ValueError(f"the document is nested too deeply: expected at most {MAX_NESTING} levels")
        elif token in "]}":
            depth -= 1


def count_objects(document: Any, most: int) -> None:
    """Raise `ValueError` if data is nested more than `MAX_NESTING` levels deep, or has more than `most` objects.

    Args:
        document: dicts, lists and tuples of other values, which are not inspected.
        most: the largest number of dicts.
    """
    level, count = [document], 0
    for _ in range(MAX_NESTING + 1):
        count += sum(isinstance(item, dict) for item in level)
        if count > most:
            raise ValueError(f"the document has too many layers: expected at most {most} objects")
        level = [inner for item in level for inner in _items(item)]
        if not level:
            return
    raise ValueError(f"the document is nested too deeply: expected at most {MAX_NESTING} levels")


def _items(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [item for item in inner if isinstance(item, (dict, list, tuple))]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name[:60]!r} occurs twice in one object")
        found[name] = value
    return found
