"""Options of presets under timm's names."""

from __future__ import annotations

from typing import Any

from maam.errors import PresetError, SpecError
from maam.spec import preset_options
from maam.torch.attention import LAYERS

_TIMMS = {"in_channels": "in_chans", "image_size": "img_size"}
NO_ATTENTION = "none"
"""What stands for the preset's `attention=None`: timm drops arguments that are None."""


def timms_options(name: str) -> list[str]:
    """The options of a preset, as timm's users call them."""
    return [_TIMMS.get(option, option) for option in preset_options(name)]


def split_options(name: str, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options that are the preset's, under the spec's names, and the others.

    Raises:
        PresetError: an option has timm's name and is not given under it.
        SpecError: `img_size` is not square, or `attention` is a function.
    """
    own: dict[str, Any] = {}
    rest = dict(options)
    for option in preset_options(name):
        known = _TIMMS.get(option, option)
        if option != known and option in rest:
            raise PresetError(f"{name!r} has no option {option!r} here; timm calls it {known!r}")
        if known in rest:
            own[option] = rest.pop(known)
    if isinstance(size := own.get("image_size"), (tuple, list)):
        own["image_size"] = _side(size)
    if "attention" in own:
        named = attention_name(name, own["attention"])
        own["attention"] = None if named == NO_ATTENTION else named
    return own, rest


def attention_name(name: str, given: Any) -> Any:
    """The attention of a preset as a value that timm can note: a layer class by its name, `NO_ATTENTION` for None.

    Raises:
        SpecError: it is another function, or another class.
    """
    if given is None:
        return NO_ATTENTION
    found = next((known for known, layer in LAYERS.items() if given is layer), given)
    if callable(found):
        raise SpecError(
            f"attention: {name!r} is a preset and takes a layer by name or as maam.torch's class, got an object of "
            f"type {type(found).__name__}; for other arguments compose a spec of your own"
        )
    return found


def _side(size: tuple[Any, ...] | list[Any]) -> Any:
    if len(size) != 2 or size[0] != size[1]:
        raise SpecError(f"img_size: expected one number or two that are equal, got {tuple(size)}")
    return size[0]
