"""`create_model` of timm with an attention layer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import load_checkpoint
from torch import nn

from maam._insertion import Insertion
from maam._options import SAVED_WITH_ATTENTION, check_insertion, check_integer, shortened_reason
from maam._registration import NotGiven, preset_name, unknown_model, with_attention
from maam.errors import WeightsError
from maam.timm.presets import is_preset
from maam.timm.pretrained import build_network, heads
from maam.torch.insertion import LAYERS, MakeLayer
from maam.torch.weights import choose_tensors, load_content
from maam.weights.file import check_path
from maam.weights.match import arrays_of_other_classes, not_finite, strip_prefixes
from maam.weights.sets import Selection


def create_model(
    model_name: str,
    pretrained: bool = False,
    *,
    attention: str | MakeLayer | NotGiven | None = NotGiven.TOKEN,
    every_block: bool = False,
    identity_init: bool = False,
    where: str | Sequence[str] | None = None,
    checkpoint_path: str | os.PathLike[str] | None = None,
    key: str | None = None,
    prefix: str | None = None,
    **options: Any,
) -> nn.Module:
    """Build a model with `timm.create_model` and insert an attention layer.

    Args:
        model_name: a model of timm, or a preset.
        pretrained: whether to load weights: those that timm publishes, those of a folder or repository
            ("local-dir:PATH", "hf-hub:NAME"), or for a preset those in maam. If they contain attention layers with the
            names and shapes of the new ones, these are loaded too; if not, the new layers keep their initial weights.
        attention: see `insert_attention`; None inserts nothing. For a preset this is the option `attention` of the
            preset: a name or a layer class, None for no attention. Default: the attention of the preset.
        every_block: see `insert_attention`; not available for a preset.
        identity_init: see `insert_attention`; not available for a preset.
        where: see `insert_attention`; not available for a preset.
        checkpoint_path: a checkpoint of the network with its attention layers. If `num_classes` is given and the
            checkpoint has another number, the last layer keeps its initial weights, as with `pretrained`.
        key: the key of the set of weights, for a checkpoint with several; see `maam.convert`.
        prefix: a prefix of the names to remove; see `maam.convert`.
        options: further arguments of `timm.create_model` and of the model.

    Returns:
        The network, from (N, in_chans, H, W) to the logits (N, num_classes).

    Raises:
        SpecError: see `insert_attention`; or an option of a preset is invalid, or an argument of the insertion is set
            without `attention`.
        PresetError: timm has no model of that name, or refuses an option.
        WeightsError: `pretrained` is true for a preset without pretrained weights; or the weights are missing or
            broken, or belong to another network or to other attention layers; or the file `checkpoint_path` has no set
            `key` or no name with `prefix`.

    Example:
        >>> import maam.timm
        >>> network = maam.timm.create_model("resnet10t", attention="mafc", num_classes=10)
        >>> network.layer1[0].se
        MAFC(
          channels=64
          ...
        >>> maam.timm.create_model("mafc_v2", attention="se", cifar=True).spec.at("classifier").kind
        'sequential'
    """
    if not isinstance(model_name, str):
        raise unknown_model(model_name, timm.list_models(), "timm.list_models()")
    if checkpoint_path is not None:
        check_path(checkpoint_path)
    if checkpoint_path and not os.path.isfile(checkpoint_path):
        raise WeightsError(f"{os.fspath(checkpoint_path)}: no such file")
    if not checkpoint_path and (key is not None or prefix is not None):
        raise WeightsError(f"{'prefix' if key is None else 'key'}: this has no effect without checkpoint_path")
    for option, minimum in (("num_classes", 0), ("in_chans", 1)):
        if options.get(option) is not None:
            check_integer(option, options[option], minimum)
    settings: dict[str, Any] = {"every_block": every_block, "identity_init": identity_init, "where": where}
    insertion = None
    if is_preset(preset_name(model_name)):
        options = with_attention(model_name, options, attention, settings, LAYERS)
    elif attention is None or isinstance(attention, NotGiven):
        check_insertion(settings)
    else:
        insertion = Insertion(attention, **settings)
    model = build_network(model_name, pretrained, insertion, options)
    if checkpoint_path:
        _load(model, Path(checkpoint_path), Selection(key, prefix), options.get("num_classes") is not None)
    return model


def _load(model: nn.Module, path: Path, selection: Selection, own_head: bool) -> None:
    """Load one set of weights of a checkpoint, by the rules of `maam.convert`.

    Args:
        model: the network.
        path: the checkpoint.
        selection: the set of weights.
        own_head: whether the last layer keeps its weights if the checkpoint has another number of classes.

    Raises:
        WeightsError: the file is broken or does not fit the model.
    """
    if path.suffix in (".npz", ".npy"):  # formats of single families, which timm reads
        try:
            load_checkpoint(model, os.fspath(path))
        except Exception as error:  # each family has its own errors
            reason = shortened_reason(error)
            raise WeightsError(f"{path}: cannot be loaded into {type(model).__name__} by timm: {reason}") from None
        return
    content = load_content(path)
    wanted = set(model.state_dict())
    arrays = strip_prefixes(choose_tensors(path, content, wanted, selection))
    if bad := [
        name for name, array in arrays.items() if isinstance(array, torch.Tensor) and not array.isfinite().all()
    ]:
        raise not_finite(bad, str(path))
    own = model.state_dict()
    if own_head:
        arrays |= {name: own[name] for name in _replaced(model, own, arrays)}
    try:
        model.load_state_dict(arrays)
    except RuntimeError as error:
        reason = shortened_reason(error, 600)
        raise WeightsError(f"{path}: does not fit the model: {reason}; {SAVED_WITH_ATTENTION}") from None


def _replaced(model: nn.Module, own: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Return the arrays of the last layer that have another number of classes in a checkpoint."""
    shapes, others = (
        {name: tuple(array.shape) for name, array in arrays.items() if isinstance(array, torch.Tensor)}
        for arrays in (own, found)
    )
    return arrays_of_other_classes(heads(model), shapes, others)
