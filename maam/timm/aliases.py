"""Other names of presets, such as "MAFCV2", in timm's registry.

The functions stand in a module of their own, so that `timm.list_models(module="presets")` names each preset once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.models import is_model, model_entrypoint, register_model
from torch import nn

from maam.spec import presets
from maam.timm.presets import is_preset

__all__ = ["preset_name", "register_aliases"]  # timm adds the models' names


def preset_name(name: str) -> str:
    """The preset that a name of a model stands for; the name itself where it is no alias."""
    return presets.aliases().get(name, name)


def register_aliases() -> None:
    """Register the aliases of presets that timm knows; a name that is taken stays what it is."""
    for alias, name in presets.aliases().items():
        if is_preset(name) and not is_model(alias):
            globals()[alias] = register_model(_entrypoint(alias, name))


def _entrypoint(alias: str, name: str) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **options: Any) -> nn.Module:
        model: nn.Module = model_entrypoint(name)(pretrained=pretrained, **options)
        return model

    create.__name__ = create.__qualname__ = alias  # by which timm registers it
    create.__doc__ = f"The preset {name!r} by its other name."
    return create
