"""torchvision's classifiers with attention."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import torchvision
from torch import nn

from maam._registration import unknown_model
from maam.errors import PresetError
from maam.spec import list_presets
from maam.torch.insertion import MakeLayer
from maam.torchvision.insert import insert_attention


def create_model(
    name: str, attention: str | MakeLayer | None = None, *, every_block: bool = False, **options: Any
) -> nn.Module:
    """`torchvision.models.get_model` with a layer of ours put in.

    Args:
        name: a classifier of torchvision.
        attention: what `insert_attention` takes; None for none.
        every_block: as in `insert_attention`.
        options: the builder's own, such as `weights`, which are loaded before attention is put in, and `num_classes`.

    Returns:
        The network: (N, 3, H, W) to the logits (N, num_classes).

    Raises:
        PresetError: there is no classifier of that name.
        SpecError: as `insert_attention` does.
    """
    _check_name(name)
    network: nn.Module = torchvision.models.get_model(name, **options)
    return network if attention is None else insert_attention(network, attention, every_block=every_block)


def _check_name(name: str) -> None:
    if str(name).lower() in list_models():  # torchvision passes over case
        return
    if name in list_presets():
        raise PresetError(
            f"{name!r} is a preset of maam: maam.torch.build({name!r}) or maam.timm.create_model({name!r})"
        )
    raise unknown_model(name, list_models(), "maam.torchvision.list_models()")


def list_models() -> list[str]:
    """The names of torchvision's classifiers, which are names of this package too."""
    names: list[str] = torchvision.models.list_models(torchvision.models)
    return names


def builder(name: str) -> Callable[..., nn.Module]:
    """The function that `maam.torchvision` has for a classifier: `create_model` without the name.

    Raises:
        AttributeError: torchvision has no such classifier.
    """
    if name not in list_models():
        close = difflib.get_close_matches(name, list_models(), 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise AttributeError(f"module 'maam.torchvision' has no attribute {name!r}{hint}")

    def build(attention: str | MakeLayer | None = None, *, every_block: bool = False, **options: Any) -> nn.Module:
        return create_model(name, attention, every_block=every_block, **options)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"torchvision's {name!r}; arguments as in `maam.torchvision.create_model`."
    return build
