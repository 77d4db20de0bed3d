"""The base class of the tables of a recipe, and messages for unknown fields."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from maam import _messages
from maam.spec.fields import describe

_SYNONYMS = {
    "learning_rate": "lr",
    "max_lr": "lr",
    "wd": "weight_decay",
    "smoothing": "label_smoothing",
    "max_norm": "clip_norm",
    "grad_clip": "clip_norm",
    "max_epochs": "epochs",
    "amp": "precision",
}
"""Names of fields in other libraries."""
_UNLIKE = ("class_weight", "class_weights", "sample_weight", "sample_weights", "pos_weight")
"""Names of fields in other libraries that maam does not have; fields with similar names have another meaning."""


class Section(BaseModel):
    """Base class of the tables of a recipe: frozen, without unknown fields or settings that have no effect.

    Attributes:
        settings_of: for each value of the field `name`, the settings that have an effect only then. Settings that are
            not listed always have an effect.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    settings_of: ClassVar[dict[str, tuple[str, ...]]] = {}

    @classmethod
    def unused_settings(cls, name: Any) -> set[str]:
        """Return the settings that have no effect under `name`."""
        if not isinstance(name, str) or name not in cls.settings_of:
            return set()
        return {field for fields in cls.settings_of.values() for field in fields} - set(cls.settings_of[name])

    @model_validator(mode="after")
    def _settings_act(self) -> Section:
        fields = type(self).model_fields
        for field in sorted(self.unused_settings(getattr(self, "name", None))):
            if getattr(self, field) != fields[field].default:
                owners = " or ".join(name for name, settings in self.settings_of.items() if field in settings)
                name = getattr(self, "name", None)
                raise ValueError(f"{field}: only for {owners}; it has no effect for {name}, so remove it")
        return self


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the messages of an error in one line, with the most similar name for an unknown field or choice.

    A table that checks itself names its field alone; the message names the path, such as "optimizer.lr".
    """
    tables = "|".join(name for name in model.model_fields if _table_fields(model, name))
    return re.sub(rf"(^|; )({tables}): (?=\w+(\.\w+)*: )", r"\1\2.", f"{describe(error)}{_hint(error, model)}")


def name_hint(name: str, known: Iterable[str]) -> str:
    """Return the end of a message: the most similar known name, or all of them."""
    known = list(known)
    if name in _UNLIKE:
        return f"; maam has no weights of classes or images; expected one of: {', '.join(known)}"
    if close := _near(name, known, 0.5):
        return f"; did you mean {close[0]!r}?"
    return f"; expected one of: {', '.join(known)}"


def field_hint(path: str, model: type[BaseModel]) -> str:
    """Return the end of a message: the fields, such as "optimizer.lr", that are similar to `path`.

    The last part of the path counts; the name of the table can be missing or wrong.
    """
    if _last(path) in _UNLIKE:
        return name_hint(_last(path), model.model_fields)
    known = list(_paths(model))
    lasts = [_last(other) for other in known]
    names = [_SYNONYMS.get(_last(path), _last(path))] if "." in path else _near(path, lasts, 0.6)
    same = [other for other in known if _last(other) in names]
    close = _messages.nearest(path, same or known, 1, 0 if same else 0.6) if "." in path else same
    if not close:
        return name_hint(path.partition(".")[0], model.model_fields)
    return f"; did you mean {' or '.join(map(repr, close))}?"


def _near(name: str, known: list[str], cutoff: float) -> list[str]:
    """Return the known name that is most similar to `name`, also by its synonyms, as a list of at most one."""
    words = [*known, *(other for other, field in _SYNONYMS.items() if field in known)]
    close = _messages.nearest(name, words, 1, cutoff)
    return [word if word in known else _SYNONYMS[word] for word in close]


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _hint(error: ValidationError, model: type[BaseModel]) -> str:
    for detail in error.errors(include_url=False):
        *path, field = detail["loc"] or ("",)
        if detail["type"] == "extra_forbidden":
            return name_hint(str(field), _fields_at(model, path)) if path else field_hint(str(field), model)
        if detail["type"] == "literal_error":
            choices = re.findall("'([^']*)'", detail["ctx"]["expected"])
            hint = _messages.suggestion(detail["input"], choices, cutoff=0.5)
            return f"; {hint}" if hint else ""
    return ""


def _table_fields(model: type[BaseModel], name: str) -> dict[str, Any]:
    """Return the fields of a table of a recipe; none for a field that is no table."""
    table = model.model_fields[name].annotation
    return table.model_fields if isinstance(table, type) and issubclass(table, BaseModel) else {}


def _paths(model: type[BaseModel], before: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{before}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _paths(field.annotation, f"{before}{name}.")


def _fields_at(model: Any, path: list[int | str]) -> dict[str, Any]:
    for part in path:
        model = model.model_fields[str(part)].annotation
    return model.model_fields
