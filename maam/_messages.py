"""Parts of error messages: readable lists of names, suggestions of similar names, and checks of counts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from numbers import Integral
from typing import Any

from maam.errors import MaamError, SpecError

_MAX_NAME = 200
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and newline, marks that reverse the direction of text, and undecodable bytes."""


def printable(text: str) -> str:
    r"""Return text with control characters as escapes, so that text from a file cannot control the terminal.

    All text that commands print goes through this function, see `maam.cli.terminal`.

    Example:
        >>> from maam._messages import printable
        >>> printable("red \x1b[31m")
        'red \\x1b[31m'
    """
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def raw_stream(stream: Any) -> Any:
    """Return the stream inside one that prints control characters as escapes; rich needs it to draw on a terminal."""
    return getattr(stream, "rich_proxied_file", stream)


def listed(names: Iterable[str], most: int = 15) -> str:
    """Return names joined by commas; empty, very long or unprintable ones are quoted and shortened.

    Args:
        names: the names. A file can have any number of them, and a message must fit on a screen.
        most: the largest number of names to show; the others are counted.
    """
    found = list(names)
    more = [f"and {len(found) - most} more"] if len(found) > most else []
    return ", ".join([*(_readable(name) for name in found[:most]), *more])


def _readable(name: str) -> str:
    if name and name.isprintable() and len(name) <= _MAX_NAME:
        return name
    return repr(name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}...")


def one_line(value: object, limit: int | None = None) -> str:
    r"""Return the text of a value, such as an error of a library, as one line of at most `limit` characters.

    Example:
        >>> one_line(ValueError("two\n   lines"))
        'two lines'
    """
    return " ".join(str(value).split())[:limit]


def shortened(value: object, limit: int = 60) -> str:
    """Return the repr of any value as one line of at most `limit` characters."""
    try:
        text = " ".join(repr(value).split())
    except RecursionError:
        text = f"a deeply nested {type(value).__name__}"
    except ValueError:  # Python does not convert integers of more than 4300 digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def nearest(name: object, known: Iterable[str], count: int = 1, cutoff: float = 0.6) -> list[str]:
    """Return up to `count` of the known names that are similar to `name`, the most similar first.

    Args:
        name: the name that was given; other objects are compared by their text.
        known: the valid names.
        count: the largest number of names to return.
        cutoff: the least similarity, 0 to 1.
    """
    import difflib  # here because only errors need it

    return difflib.get_close_matches(str(name), list(known), count, cutoff)


def suggestion(name: object, known: Iterable[str], otherwise: str = "", *, count: int = 1, cutoff: float = 0.6) -> str:
    """Return "did you mean 'x' or 'y'?", or `otherwise` if no known name is similar; arguments as in `nearest`."""
    close = nearest(name, known, count, cutoff)
    return f"did you mean {' or '.join(shortened(found, _MAX_NAME) for found in close)}?" if close else otherwise


def is_count(value: object) -> bool:
    """Return whether a value is an integer of at least 1, from Python or NumPy; a bool is not."""
    return type(value) is not bool and isinstance(value, Integral) and int(value) >= 1


def check_counts(error: type[MaamError] = SpecError, /, **counts: object) -> None:
    """Raise `error`, naming the argument, unless each value is an integer of at least 1."""
    for name, count in counts.items():
        if not is_count(count):
            raise error(f"{name}: expected an integer of at least 1, got {count!r}")
