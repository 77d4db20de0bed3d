"""`create_model` as timm has it, with attention."""

from __future__ import annotations

import os
from enum import Enum
from typing import Any

import timm
from timm.models import load_checkpoint
from torch import nn

from maam.errors import PresetError
from maam.timm.aliases import preset_name
from maam.timm.attention import insert_attention
from maam.timm.options import attention_name
from maam.timm.presets import is_preset
from maam.torch.attention import MakeLayer


class NotGiven(Enum):
    """The type of an argument that was left out, where None says something."""

    TOKEN = "not given"


def create_model(
    model_name: str,
    pretrained: bool = False,
    *,
    attention: str | MakeLayer | NotGiven | None = NotGiven.TOKEN,
    every_block: bool = False,
    checkpoint_path: str | os.PathLike[str] | None = None,
    **options: Any,
) -> nn.Module:
    """`timm.create_model` with a layer of ours put in.

    Args:
        model_name: a model of timm, or a preset.
        pretrained: load timm's published weights, before attention is put in; the new layers stay as they are drawn.
        attention: what `insert_attention` takes, None for none. For a preset it is the preset's own option of that
            name, where it has one: a name or a layer class; None takes its attention out, and what is not given leaves
            it as it is.
        every_block: as in `insert_attention`; not for a preset.
        checkpoint_path: a checkpoint of the network with its attention.
        options: further arguments of `timm.create_model` and of the model.

    Returns:
        The network: (N, in_chans, H, W) to the logits (N, num_classes).

    Raises:
        SpecError: as `insert_attention` does, or an option of a preset is invalid.
        PresetError: a preset has no such option.
    """
    own = is_preset(preset_name(model_name))
    if own and every_block:
        raise PresetError(f"{model_name!r} is a preset, whose spec says where attention stands; leave every_block out")
    if own and attention is not NotGiven.TOKEN:
        options["attention"] = attention_name(model_name, attention)
    model: nn.Module = timm.create_model(model_name, pretrained, **options)
    if not own and attention is not None and not isinstance(attention, NotGiven):
        insert_attention(model, attention, every_block=every_block)
    if checkpoint_path:
        load_checkpoint(model, os.fspath(checkpoint_path))
    return model
