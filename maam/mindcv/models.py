"""`create_model` of MindCV with an attention layer; it checks that a checkpoint fits the model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mindcv
import numpy as np
from mindcv.models.helpers import load_model_checkpoint
from mindspore import load_param_into_net, nn

from maam._messages import listed
from maam._options import check_insertion, check_integer, refused_options
from maam._registration import NotGiven, preset_name, unknown_model, with_attention
from maam.backend.convert import read_file
from maam.errors import WeightsError
from maam.mindcv.insert import insert_attention
from maam.mindcv.presets import is_preset
from maam.mindspore import load_weights
from maam.mindspore.insertion import LAYERS, MakeLayer
from maam.mindspore.weights import read_parameters
from maam.spec import head, preset
from maam.weights.file import check_path
from maam.weights.match import arrays_of_other_classes, not_finite
from maam.weights.sets import REST, Selection

_EMA = "ema"
"""The key of MindCV's moving average."""


def create_model(
    model_name: str,
    num_classes: int | None = None,
    pretrained: bool = False,
    in_channels: int = 3,
    checkpoint_path: str | os.PathLike[str] = "",
    ema: bool | None = None,
    auto_mapping: bool = False,
    *,
    key: str | None = None,
    prefix: str | None = None,
    attention: str | MakeLayer | NotGiven | None = NotGiven.TOKEN,
    every_block: bool = False,
    identity_init: bool = False,
    where: str | Sequence[str] | None = None,
    **options: Any,
) -> nn.Cell:
    """Build a model with `mindcv.create_model`, insert an attention layer, and load a checkpoint.

    MindCV ignores a missing checkpoint and parameters whose names do not match. Here both are errors.

    Args:
        model_name: a model of MindCV, or a preset.
        num_classes: the length of the logits. Default: 1000, or with pretrained weights of a preset their number of
            classes.
        pretrained: whether to load the weights that MindCV publishes, or for a preset those in maam. They are loaded
            before attention is inserted, and the new layers keep their initial weights.
        in_channels: the number of channels of the image.
        checkpoint_path: a MindSpore checkpoint of the network with or without attention layers. For a preset also a
            weights file of maam (.safetensors). If `num_classes` is given and the checkpoint has another number, the
            last layer keeps its initial weights, as with `pretrained`.
        ema: whether to take the moving average in the checkpoint, the arrays named `ema.*`. None takes it if there is
            one, as every function of maam does, and issues a warning.
        auto_mapping: see `mindcv.create_model`; if true, maam does not check the checkpoint.
        key: the key of the set of weights, for a checkpoint with several; see `maam.convert`.
        prefix: a prefix of the names to remove; see `maam.convert`.
        attention: see `insert_attention`; None inserts nothing. For a preset this is the option `attention` of the
            preset: a name or a layer class, None for no attention. Default: the attention of the preset.
        every_block: see `insert_attention`; not available for a preset.
        identity_init: see `insert_attention`; not available for a preset.
        where: see `insert_attention`; not available for a preset.
        options: further arguments of the model.

    Returns:
        The cell, from (N, in_channels, H, W) to the logits (N, num_classes).

    Raises:
        PresetError: MindCV has no model of that name, or the model has no such option.
        SpecError: see `insert_attention`; or an option of a preset is invalid, or an argument of the insertion is set
            without `attention`.
        WeightsError: the checkpoint is missing or does not match the model, or a preset has no pretrained weights.

    Example:
        >>> from maam.mindcv import create_model
        >>> network = create_model("mobilenet_v1_025", num_classes=10, attention="mafc")
        >>> type(network.features[3][-1]).__name__
        'MAFC'
        >>> create_model("maam_digits", num_classes=10, in_channels=1).spec.name
        'maam_digits'
    """
    settings: dict[str, Any] = {"every_block": every_block, "identity_init": identity_init, "where": where}
    if not isinstance(model_name, str) or not mindcv.is_model(model_name):
        raise unknown_model(model_name, mindcv.list_models(), "mindcv.list_models()")
    check_path(checkpoint_path)
    checkpoint_path = os.fspath(checkpoint_path)
    if checkpoint_path and pretrained:
        raise WeightsError("checkpoint_path and pretrained cannot be used together; pass only one of them")
    if given := [name for name, value in (("key", key), ("prefix", prefix)) if value is not None]:
        if (ema is not None and key is not None) or auto_mapping:
            other = "auto_mapping" if auto_mapping else "ema"
            raise WeightsError(f"{given[0]} and {other} cannot be used together; pass only one of them")
        if not checkpoint_path:
            raise WeightsError(f"{given[0]}: this has no effect without checkpoint_path")
    selection = Selection(key if ema is None else _EMA if ema else REST, prefix)
    for option, count in (("num_classes", num_classes), ("in_channels", in_channels)):
        if count is not None:
            check_integer(option, count, 1)
    own_head = num_classes is not None
    if num_classes is None:
        own = pretrained and is_preset(preset_name(model_name))
        num_classes = preset(preset_name(model_name)).num_classes if own else 1000
    arguments = {"num_classes": num_classes, "pretrained": pretrained, "in_channels": in_channels, **options}
    if is_preset(preset_name(model_name)):
        model = mindcv.create_model(model_name, **with_attention(model_name, arguments, attention, settings, LAYERS))
        if checkpoint_path:
            _load_preset(model, checkpoint_path, selection, auto_mapping, own_head)
        return model
    if attention is None or isinstance(attention, NotGiven):
        attention = None
        check_insertion(settings)
    given_options = {**options, **({"pretrained": pretrained} if pretrained else {})}
    with refused_options("MindCV", model_name, given_options, ("num_classes", "in_channels", "features_only")):
        model = mindcv.create_model(model_name, **arguments)
    plain = {parameter.name for parameter in model.get_parameters()}
    if attention is not None:
        insert_attention(model, attention, **settings)
    if checkpoint_path:
        last = _last_dense(model) if own_head else []
        _load(model, plain, checkpoint_path, selection, auto_mapping, last)
    return model


def _load_preset(model: nn.Cell, path: str, selection: Selection, auto_mapping: bool, own_head: bool) -> None:
    if not path.endswith(".safetensors"):
        _check_file(path)
    if auto_mapping:
        load_model_checkpoint(model, path, selection.key == _EMA, auto_mapping)
        return
    skip: tuple[str, ...] = ()
    if own_head:
        arrays, _ = read_file(Path(path), model.spec, selection)
        own, found = _shapes({p.name: p for p in model.spec.parameters()}), _shapes(arrays)
        last = (head(model.spec),)
        skip = last if arrays_of_other_classes(last, own, found) else ()
    load_weights(model, path, skip=skip, key=selection.key, prefix=selection.prefix)


def _last_dense(model: nn.Cell) -> list[str]:
    """Return the name of the last linear layer; empty if there is none."""
    return [name for name, cell in model.cells_and_names() if isinstance(cell, nn.Dense)][-1:]


def _load(
    model: nn.Cell, plain: set[str], path: str, selection: Selection, auto_mapping: bool, last: list[str]
) -> None:
    """Load a checkpoint that has all parameters of the model, or all `plain` ones, those without the new layers.

    The layers `last` keep their weights if the checkpoint has another number of classes.
    """
    _check_file(path)
    if auto_mapping:
        load_model_checkpoint(model, path, selection.key == _EMA, auto_mapping)
        return
    own = _shapes(model.parameters_dict())
    found = read_parameters(Path(path), own, selection)
    missing = [name for name in own if name not in found]
    if missing and set(missing) != set(own) - plain:
        raise WeightsError(f"{path}: does not fit the model; missing: {listed(missing)}")
    if unexpected := [name for name in found if name not in own]:
        raise WeightsError(f"{path}: does not fit the model; unexpected: {listed(unexpected)}")
    for name in arrays_of_other_classes(last, own, _shapes(found)):
        del found[name]
    for name, shape in own.items():
        if name in found and tuple(found[name].shape) != shape:
            raise WeightsError(
                f"{path}: does not fit the model; wrong shape: {listed([name])} {tuple(found[name].shape)} instead of "
                f"{shape}"
            )
    if bad := [name for name, parameter in found.items() if not np.isfinite(parameter.asnumpy()).all()]:
        raise not_finite(bad, path)
    for name, parameter in found.items():
        parameter.name = name
    load_param_into_net(model, found)


def _shapes(arrays: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(array.shape) for name, array in arrays.items()}


def _check_file(path: str) -> None:
    if not Path(path).is_file():
        raise WeightsError(f"{path}: no such file")
    if not path.endswith(".ckpt"):
        raise WeightsError(f"{path}: expected a MindSpore checkpoint (.ckpt), or a weights file for a preset")
