"""Weights for a preset's timm model: timm's filter of checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maam.errors import WeightsError
from maam.names import strip_prefixes
from maam.spec import BatchNorm2d, Conv2d, Node
from maam.timm.anatomy import first_convolutions
from maam.timm.model import PresetModel
from maam.weights.file import read_safetensors
from maam.weights.matching import check_same_function


def checkpoint_filter(
    state_dict: Mapping[str, Tensor], model: PresetModel, *, new_head: bool = True
) -> dict[str, Tensor]:
    """The arrays for `model`, which timm then fits to its classes and channels.

    What timm must know of the source for that, classes and channels, is read off the arrays. A batch norm in front of
    the first convolution gets the mean over the source's channels, where the model has another number of them.

    Raises:
        WeightsError: the arrays come from a weights file of maam whose network computes something else, or there are
            other classes and `new_head` is false.
    """
    arrays = strip_prefixes(state_dict)
    cfg: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    first, last = first_convolutions(model.whole), model.anatomy.head
    changed: tuple[str, ...] = ()
    if f"{last}.weight" in arrays:
        cfg["num_classes"] = classes = arrays[f"{last}.weight"].shape[0]
        changed += (last,) if classes != model.num_classes else ()
        if changed and not new_head:
            raise WeightsError(
                f"{cfg.get('file', 'weights')}: {classes} classes there, {model.num_classes} in the model; pass "
                f"num_classes={classes} to keep the last layer, or another number for a new one"
            )
    channels = _channels(arrays, model.whole, first)
    if channels not in (None, model.in_chans):
        cfg["input_size"] = (channels, *cfg["input_size"][1:])
        norms = [path for path in model.anatomy.stem if isinstance(model.whole.at(path), BatchNorm2d)]
        arrays = {name: _averaged(name, array, norms, model.in_chans) for name, array in arrays.items()}
        changed += (*first, *norms)
    _check_function(model.whole, cfg.get("file"), changed)
    return arrays


def _channels(arrays: Mapping[str, Tensor], spec: Node, first: tuple[str, ...]) -> int | None:
    """The channels of the source's images; None where no convolution says it."""
    for path in first:
        layer = spec.at(path)
        if isinstance(layer, Conv2d) and layer.groups == 1 and f"{path}.weight" in arrays:
            return arrays[f"{path}.weight"].shape[1]
    return None


def _averaged(name: str, array: Tensor, norms: list[str], channels: int) -> Tensor:
    if name.rpartition(".")[0] in norms and array.dim() == 1:
        return array.mean().expand(channels).clone()
    return array


def _check_function(own: Node, path: Any, skip: tuple[str, ...]) -> None:
    if path and str(path).endswith(".safetensors"):
        saved, _ = read_safetensors(path)
        if saved is not None:
            check_same_function(own, saved, source=str(path), skip=skip)
