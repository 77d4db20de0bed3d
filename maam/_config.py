"""What the tables of a recipe have in common."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from maam.spec.fields import describe

_ELSEWHERE = {
    "learning_rate": "lr",
    "max_lr": "lr",
    "wd": "weight_decay",
    "smoothing": "label_smoothing",
    "max_norm": "clip_norm",
    "grad_clip": "clip_norm",
    "max_epochs": "epochs",
    "amp": "precision",
}
"""What other libraries call a field."""


class Section(BaseModel):
    """A frozen table; unknown fields are errors, and so are settings that do not act.

    `acting` says which settings act under which `name`, where that is not all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    acting: ClassVar[dict[str, tuple[str, ...]]] = {}

    @classmethod
    def foreign(cls, name: Any) -> set[str]:
        """The settings that belong to other names than `name`."""
        if not isinstance(name, str) or name not in cls.acting:
            return set()
        return {field for fields in cls.acting.values() for field in fields} - set(cls.acting[name])

    @model_validator(mode="after")
    def _settings_act(self) -> Section:
        fields = type(self).model_fields
        for field in sorted(self.foreign(getattr(self, "name", None))):
            if getattr(self, field) != fields[field].default:
                owners = " or ".join(name for name, acting in self.acting.items() if field in acting)
                raise ValueError(f"{field}: it belongs to {owners}, and does not act in {getattr(self, 'name', None)}")
        return self


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong, in one line, and for an unknown field or choice of `model` the nearest one that there is."""
    return f"{describe(error)}{_hint(error, model)}"


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause that names what `name` may have meant."""
    known = list(known)
    if close := _near(name, known, 0.5):
        return f"; did you mean {close[0]!r}?"
    return f"; expected one of: {', '.join(known)}"


def nearest_field(path: str, model: type[BaseModel]) -> str:
    """A clause that names the field, such as "optimizer.lr", that `path` may have meant.

    The last name counts: a section's may have been left out, or another one given.
    """
    known = list(_paths(model))
    lasts = [_last(other) for other in known]
    names = [_ELSEWHERE.get(_last(path), _last(path))] if "." in path else _near(path, lasts, 0.6)
    same = [other for other in known if _last(other) in names]
    close = difflib.get_close_matches(path, same or known, 1, 0 if same else 0.6) if "." in path else same
    if not close:
        return nearest(path.partition(".")[0], model.model_fields)
    return f"; did you mean {' or '.join(map(repr, close))}?"


def _near(name: str, known: list[str], cutoff: float) -> list[str]:
    """The one of `known` that is nearest to `name`, by its own name or another library's; empty where none is near."""
    words = [*known, *(other for other, field in _ELSEWHERE.items() if field in known)]
    close = difflib.get_close_matches(name, words, 1, cutoff)
    return [word if word in known else _ELSEWHERE[word] for word in close]


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _hint(error: ValidationError, model: type[BaseModel]) -> str:
    for detail in error.errors(include_url=False):
        *path, field = detail["loc"] or ("",)
        if detail["type"] == "extra_forbidden":
            return nearest(str(field), _fields(model, path)) if path else nearest_field(str(field), model)
        if detail["type"] == "literal_error":
            choices = re.findall("'([^']*)'", detail["ctx"]["expected"])
            close = difflib.get_close_matches(str(detail["input"]), choices, 1, 0.5)
            return f"; did you mean {close[0]!r}?" if close else ""
    return ""


def _paths(model: type[BaseModel], before: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{before}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _paths(field.annotation, f"{before}{name}.")


def _fields(model: Any, path: list[int | str]) -> dict[str, Any]:
    for part in path:
        model = model.model_fields[str(part)].annotation
    return model.model_fields
