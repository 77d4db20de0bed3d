"""What the tables of a recipe have in common."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from maam.spec.fields import describe


class Section(BaseModel):
    """A frozen table; unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong, in one line, and for an unknown field of `model` the nearest one that there is."""
    for detail in error.errors(include_url=False):
        if detail["type"] == "extra_forbidden":
            *path, field = detail["loc"]
            return f"{describe(error)}{nearest(str(field), _fields(model, path))}"
    return describe(error)


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that names what `name` may have meant."""
    known = list(known)
    close = difflib.get_close_matches(name, known, 1, 0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; expected one of: {', '.join(known)}"


def _fields(model: Any, path: list[int | str]) -> dict[str, Any]:
    for part in path:
        model = model.model_fields[str(part)].annotation
    return model.model_fields
