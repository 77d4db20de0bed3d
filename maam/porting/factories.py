"""A user's model by the name of the function that makes it."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from maam.errors import PortingError


def load_factory(name: str) -> Any:
    """What `package.module:callable` returns when called without arguments; this runs the user's own code.

    The working folder is searched too, as `python -m` does.

    Raises:
        PortingError: the name has another form, there is no such module or callable, or it fails.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise PortingError(f"{name!r}: expected package.module:callable, such as my_models:resnet")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's code raises
        reason = error if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise PortingError(f"{name}: {module_name} cannot be imported: {reason}") from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise PortingError(f"{name}: {module_name} has no {attribute}")
        found = getattr(found, part)
    if not callable(found):
        raise PortingError(f"{name}: expected a function or class, got an object of type {type(found).__name__}")
    try:
        return found()
    except Exception as error:  # whatever the user's code raises
        raise PortingError(f"{name}() failed: {type(error).__name__}: {error}") from error
