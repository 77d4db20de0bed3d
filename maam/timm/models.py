"""`create_model` as timm has it, with attention."""

from __future__ import annotations

import os
from typing import Any

import timm
from timm.models import load_checkpoint
from torch import nn

from maam.timm.attention import insert_attention
from maam.timm.presets import is_preset
from maam.torch.attention import MakeLayer


def create_model(
    model_name: str,
    pretrained: bool = False,
    *,
    attention: str | MakeLayer | None = None,
    every_block: bool = False,
    checkpoint_path: str | os.PathLike[str] | None = None,
    **options: Any,
) -> nn.Module:
    """`timm.create_model` with a layer of ours put in.

    Args:
        model_name: a model of timm, or a preset.
        pretrained: load timm's published weights, before attention is put in; the new layers stay as they are drawn.
        attention: what `insert_attention` takes. For a preset it is the preset's own option of that name, where it has
            one.
        every_block: as in `insert_attention`.
        checkpoint_path: a checkpoint of the network with its attention.
        options: further arguments of `timm.create_model` and of the model.

    Returns:
        The network: (N, in_chans, H, W) to the logits (N, num_classes).

    Raises:
        SpecError: as `insert_attention` does, or an option of a preset is invalid.
        PresetError: a preset has no such option.
    """
    own = attention is not None and is_preset(model_name)
    if own:
        options["attention"] = attention
    model: nn.Module = timm.create_model(model_name, pretrained, **options)
    if attention is not None and not own:
        insert_attention(model, attention, every_block=every_block)
    if checkpoint_path:
        load_checkpoint(model, os.fspath(checkpoint_path))
    return model
