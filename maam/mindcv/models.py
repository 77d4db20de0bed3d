"""`create_model` of MindCV with an attention layer; it checks that a checkpoint fits the model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mindcv
from mindcv.models.helpers import load_model_checkpoint
from mindspore import load_checkpoint, nn

from maam._messages import listed
from maam._registration import NotGiven, preset_name, unknown_model, with_attention
from maam.errors import WeightsError
from maam.mindcv.insert import insert_attention
from maam.mindcv.presets import is_preset
from maam.mindspore import load_weights
from maam.mindspore.arrays import write_arrays
from maam.mindspore.insertion import LAYERS, MakeLayer
from maam.mindspore.weights import read_checkpoint
from maam.weights import match


def create_model(
    model_name: str,
    num_classes: int = 1000,
    pretrained: bool = False,
    in_channels: int = 3,
    checkpoint_path: str | os.PathLike[str] = "",
    ema: bool = False,
    auto_mapping: bool = False,
    *,
    attention: str | MakeLayer | NotGiven | None = NotGiven.TOKEN,
    every_block: bool = False,
    **options: Any,
) -> nn.Cell:
    """Build a model with `mindcv.create_model`, insert an attention layer, and load a checkpoint.

    MindCV ignores a missing checkpoint and parameters whose names do not match. Here both are errors.

    Args:
        model_name: a model of MindCV, or a preset.
        num_classes: the length of the logits.
        pretrained: whether to load the weights that MindCV publishes. They are loaded before attention is inserted,
            and the new layers keep their initial weights.
        in_channels: the number of channels of the image.
        checkpoint_path: a MindSpore checkpoint of the network with or without attention layers. For a preset also a
            weights file of maam (.safetensors).
        ema: see `mindcv.create_model`; if true, maam does not check the checkpoint.
        auto_mapping: see `mindcv.create_model`; if true, maam does not check the checkpoint.
        attention: see `insert_attention`; None inserts nothing. For a preset this is the option `attention` of the
            preset: a name or a layer class, None for no attention. Default: the attention of the preset.
        every_block: see `insert_attention`; not available for a preset.
        options: further arguments of the model.

    Returns:
        The cell, from (N, in_channels, H, W) to the logits (N, num_classes).

    Raises:
        PresetError: MindCV has no model of that name, or a preset has no such option.
        SpecError: see `insert_attention`; or an option of a preset is invalid.
        WeightsError: the checkpoint is missing or does not match the model, or `pretrained` is true for a preset.

    Example:
        >>> from maam.mindcv import create_model
        >>> network = create_model("mobilenet_v1_025", num_classes=10, attention="mafc")
        >>> type(network.features[3][-1]).__name__
        'MAFC'
        >>> create_model("maam_digits", num_classes=10, in_channels=1).spec.name
        'maam_digits'
    """
    if not mindcv.is_model(model_name):
        raise unknown_model(model_name, mindcv.list_models(), "mindcv.list_models()")
    checkpoint_path = os.fspath(checkpoint_path)
    if checkpoint_path and pretrained:
        raise WeightsError("checkpoint_path and pretrained cannot be used together; pass only one of them")
    given = {"num_classes": num_classes, "pretrained": pretrained, "in_channels": in_channels, **options}
    if is_preset(preset_name(model_name)):
        model = mindcv.create_model(model_name, **with_attention(model_name, given, attention, every_block, LAYERS))
        if checkpoint_path:
            _load_preset(model, checkpoint_path, ema, auto_mapping)
        return model
    model = mindcv.create_model(model_name, **given)
    plain = {parameter.name for parameter in model.get_parameters()}
    if attention is not None and not isinstance(attention, NotGiven):
        insert_attention(model, attention, every_block=every_block)
    if checkpoint_path:
        _load(model, plain, checkpoint_path, ema, auto_mapping)
    return model


def _load_preset(model: nn.Cell, path: str, ema: bool, auto_mapping: bool) -> None:
    if path.endswith(".safetensors"):
        load_weights(model, path)
        return
    _check_file(path)
    if ema or auto_mapping:
        load_model_checkpoint(model, path, ema, auto_mapping)
        return
    arrays, _ = read_checkpoint(Path(path), model.spec)
    write_arrays(model, match(model.spec, arrays, source=path)[0])


def _load(model: nn.Cell, plain: set[str], path: str, ema: bool, auto_mapping: bool) -> None:
    """Load a checkpoint that has all parameters of the model, or all `plain` ones, those without the new layers."""
    _check_file(path)
    if not ema and not auto_mapping:
        own = [parameter.name for parameter in model.get_parameters()]
        found = load_checkpoint(path)
        missing = [name for name in own if name not in found]
        if missing and set(missing) != set(own) - plain:
            raise WeightsError(f"{path}: does not fit the model; missing: {listed(missing)}")
        for parameter in model.get_parameters():
            shape = tuple(found[parameter.name].shape) if parameter.name in found else tuple(parameter.shape)
            if shape != tuple(parameter.shape):
                raise WeightsError(
                    f"{path}: does not fit the model; wrong shape: {listed([parameter.name])} {shape} instead of "
                    f"{tuple(parameter.shape)}"
                )
    load_model_checkpoint(model, path, ema, auto_mapping)


def _check_file(path: str) -> None:
    if not Path(path).is_file():
        raise WeightsError(f"{path}: no such file")
    if not path.endswith(".ckpt"):
        raise WeightsError(f"{path}: expected a MindSpore checkpoint (.ckpt), or a weights file for a preset")
