"""Options of presets under timm's names."""

from __future__ import annotations

from typing import Any

from maam.errors import PresetError, SpecError
from maam.preset_attention import attention_option
from maam.spec import preset_options
from maam.torch.attention import LAYERS

_TIMMS = {"in_channels": "in_chans", "image_size": "img_size"}


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
        own["attention"] = attention_option(name, own["attention"], LAYERS)
    return own, rest


def _side(size: tuple[Any, ...] | list[Any]) -> Any:
    if len(size) != 2 or size[0] != size[1]:
        raise SpecError(f"img_size: expected one number or two that are equal, got {tuple(size)}")
    return size[0]
