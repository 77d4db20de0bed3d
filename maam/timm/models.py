"""`create_model` as timm has it, with attention."""

from __future__ import annotations

import os
from typing import Any

import timm
from timm.models import load_checkpoint
from torch import nn

from maam._registration import NotGiven, preset_name, unknown_model, with_attention
from maam.errors import WeightsError
from maam.timm.insert import insert_attention
from maam.timm.presets import is_preset
from maam.torch.insertion import LAYERS, MakeLayer


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
        PresetError: there is no model of that name, or a preset has no such option.
        WeightsError: `pretrained` for a preset, of which no weights are published; or there is no `checkpoint_path`.
    """
    if checkpoint_path and not os.path.isfile(checkpoint_path):
        raise WeightsError(f"{os.fspath(checkpoint_path)}: no such file")
    own = is_preset(preset_name(model_name))
    if own:
        options = with_attention(model_name, options, attention, every_block, LAYERS)
    model = _made(model_name, pretrained, options)
    if not own and attention is not None and not isinstance(attention, NotGiven):
        insert_attention(model, attention, every_block=every_block)
    if checkpoint_path:
        load_checkpoint(model, os.fspath(checkpoint_path))
    return model


def _made(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    try:
        model: nn.Module = timm.create_model(name, pretrained, **options)
    except RuntimeError as error:
        if not str(error).startswith("Unknown model"):
            raise
        raise unknown_model(name, timm.list_models(), "timm.list_models()") from None
    return model
