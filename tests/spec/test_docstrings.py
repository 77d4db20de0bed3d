"""Composites say what they take and raise, in full: the layers of all frameworks are documented by these texts."""

import inspect
import re

import pytest

from maam import spec

COMPOSITES = [name for name in spec.__all__ if hasattr(getattr(spec, name), "__wrapped__")]
assert {"maam", "mafc", "mobilenet"} <= set(COMPOSITES)


@pytest.mark.parametrize("name", COMPOSITES)
def test_arguments_and_errors(name):
    function = getattr(spec, name)
    arguments, errors = inspect.getdoc(function).split("\nArgs:\n")[1].split("\nRaises:\n")
    assert re.findall(r"^    (\w+): ", arguments, re.MULTILINE) == list(inspect.signature(function).parameters)
    assert errors.startswith("    SpecError: ")
    assert "as in `" not in arguments
