"""`create_model` as MindCV has it, with attention, and with checkpoints that are held against the model."""

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
    """`mindcv.create_model` with a layer of ours in every block, and with checkpoints checked.

    Args:
        model_name: a model of MindCV, or a preset.
        num_classes: length of the logits.
        pretrained: load MindCV's published weights, before attention is put in; the new layers stay as they are.
        in_channels: channels of the image.
        checkpoint_path: a MindSpore checkpoint, of the plain network or of the one with attention; for a preset a
            weights file of ours (.safetensors) too. MindCV itself passes over a file that does not exist and over
            names that do not fit; here both are errors.
        ema: as in MindCV, with its own checks only, like `auto_mapping`.
        auto_mapping: as in MindCV.
        attention: what `insert_attention` takes, None for none. For a preset it is the preset's own option of that
            name, where it has one: a name or a layer class; None takes its attention out, and what is not given leaves
            it as it is.
        every_block: as in `insert_attention`; not for a preset.
        options: further arguments of the model.

    Returns:
        The cell: (N, in_channels, H, W) to the logits (N, num_classes).

    Raises:
        PresetError: there is no model of that name, or a preset has no such option.
        SpecError: there is no layer of that name, the model has no block for it, or a preset's option is invalid.
        WeightsError: the checkpoint is missing or does not fit, or a preset is asked for pretrained weights.
    """
    _check_name(model_name)
    checkpoint_path = os.fspath(checkpoint_path)
    if checkpoint_path and pretrained:
        raise WeightsError("checkpoint_path and pretrained are both given; leave one out")
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


def _check_name(name: str) -> None:
    if not mindcv.is_model(name):
        raise unknown_model(name, mindcv.list_models(), "mindcv.list_models()")


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
    """Load a checkpoint that has every parameter of the model, or at least all of the `plain` network's."""
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
        raise WeightsError(f"{path}: expected a MindSpore checkpoint (.ckpt), or for a preset a weights file")
