"""Checks of the options of `create_model`, in the same words for timm, torchvision and MindCV."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from typing import Any

from maam._messages import one_line, shortened, suggestion
from maam.errors import MaamError, OptionError, SpecError

SAVED_WITH_ATTENTION = "if the network was saved with attention, pass attention=NAME, with the arguments it had"
"""Advice for weights with other attention layers than the network."""
_INSERTION = ("attention", "every_block", "identity_init", "where")
_REFUSALS = (TypeError, ValueError, LookupError, AttributeError, AssertionError, NotImplementedError)
"""The errors that the libraries raise for options that a model does not accept."""


def check_insertion(settings: Mapping[str, Any]) -> None:
    """Raise `SpecError` if one of `settings`, the arguments of an insertion, is set; call it without attention."""
    for name, value in settings.items():
        if value not in (None, False):
            raise SpecError(
                f"{name}: this has no effect without attention, got {name}={shortened(value)}; pass attention=NAME, or "
                f"omit {name}"
            )


def check_integer(name: str, value: object, minimum: int) -> None:
    """Raise `SpecError` unless the option `name` is an integer, from Python or NumPy, of at least `minimum`."""
    if type(value) is bool or not isinstance(value, Integral) or int(value) < minimum:
        raise SpecError(f"{name}: expected an integer of at least {minimum}, got {shortened(value)}")


@contextmanager
def refused_options(library: str, name: str, options: Mapping[str, Any], known: Iterable[str]) -> Iterator[None]:
    """Turn an error of a library about the options of a model into an `OptionError`.

    Errors of maam, of files and connections, and errors without options are not changed.

    Args:
        library: the name of the library.
        name: the name of the model.
        options: the options that go to the library.
        known: names of options, for a suggestion.
    """
    try:
        yield
    except (MaamError, OSError):
        raise
    except _REFUSALS as error:
        if not options:
            raise
        reason = shortened_reason(error)
        found = re.search(r"unexpected keyword argument '(\w+)'", reason)
        if found and found[1] in options:
            otherwise = f"omit it, or pass an argument of the model's function in {library}"
            hint = suggestion(found[1], (*_INSERTION, *known), otherwise)
            given = shortened(options[found[1]])
            raise OptionError(f"{name!r} has no option {found[1]!r} in {library}, got {given}; {hint}") from error
        given = ", ".join(f"{option}={shortened(value)}" for option, value in options.items())
        raise OptionError(
            f"{name!r}: {library} cannot build the model with {given}: {type(error).__name__}: {reason}; correct or "
            "omit the option"
        ) from error


def shortened_reason(error: BaseException, limit: int = 300) -> str:
    """Return the message of an error as one line of at most `limit` characters."""
    text = one_line(error)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
