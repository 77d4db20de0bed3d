"""A preset's option `attention` on its way through the `create_model` of another library, which drops what is None."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from maam.errors import PresetError, SpecError

NO_ATTENTION = "none"
"""What stands for the preset's `attention=None` on the way."""


class NotGiven(Enum):
    """The type of an argument that was left out, where None says something."""

    TOKEN = "not given"


def attention_name(name: str, given: Any, layers: Mapping[str, type]) -> Any:
    """The attention of the preset `name` as a value: a class of `layers` by its name, `NO_ATTENTION` for None.

    Raises:
        SpecError: it is another class, or a function.
    """
    if given is None:
        return NO_ATTENTION
    found = next((known for known, layer in layers.items() if given is layer), given)
    if callable(found):
        own = next(iter(layers.values())).__module__.rpartition(".")[0]
        what = f"{found.__module__}.{found.__qualname__}" if isinstance(found, type) else type(found).__name__
        raise SpecError(
            f"attention: {name!r} is a preset and takes a layer by name, or as the class of {own}, got {what}; for "
            "other arguments compose a spec of your own"
        )
    return found.lower() if isinstance(found, str) else found


def attention_option(name: str, given: Any, layers: Mapping[str, type]) -> Any:
    """The same as the preset itself takes it: None again for `NO_ATTENTION`.

    Raises:
        SpecError: as `attention_name`.
    """
    found = attention_name(name, given, layers)
    return None if found == NO_ATTENTION else found


def with_attention(
    name: str, options: dict[str, Any], attention: Any, every_block: bool, layers: Mapping[str, type]
) -> dict[str, Any]:
    """`options` for the preset `name`, with `attention` where it was given.

    Raises:
        PresetError: `every_block` is asked for.
        SpecError: as `attention_name`.
    """
    if every_block:
        raise PresetError(f"{name!r} is a preset, whose spec says where attention stands; leave every_block out")
    if attention is NotGiven.TOKEN:
        return options
    return {**options, "attention": attention_name(name, attention, layers)}
