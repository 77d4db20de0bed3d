"""Weights files in and out of PyTorch modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import nn

from maam.errors import WeightsError
from maam.torch.arrays import from_numpy, read_arrays, tensors, unwrap, write_arrays
from maam.torch.conformity import check_forward, check_module
from maam.torch.models import build
from maam.weights import Mismatch
from maam.weights.exchange import PathLike, Slot, check_model, load_into, numpy_dtype, read_whole, save_model

FLOATING = {
    torch.float16: np.dtype(np.float16),
    torch.bfloat16: np.dtype(ml_dtypes.bfloat16),
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}
"""The dtypes that weights files hold."""


def save_weights(model: nn.Module, path: PathLike) -> None:
    """Write the parameters and running statistics of a model or a single layer, with its spec, to one file.

    Raises:
        WeightsError: the model was not built by maam, or has a layer that its spec does not say, or arrays that do not
            fit it or are not finite; or the file cannot be written.
    """
    check_model(model, nn.Module, "torch.nn.Module", "save_weights")
    own = unwrap(model)
    check_module(own, "save_weights", WeightsError)
    check_forward(own, "save_weights", WeightsError)
    save_model(path, own, read_arrays(own))


def load_weights(model: nn.Module, path: PathLike, strict: bool = True, skip: Sequence[str] = ()) -> Mismatch:
    """Copy a file's arrays into a model, cast to its dtypes; returns the names that stand on one side only.

    Args:
        model: a model or layer of maam.
        path: a weights file.
        strict: whether every name must stand on both sides, and the file's spec compute the same as the model's.
        skip: names of layers, such as "classifier", that stay as they are: what the file has for them is left out.

    Raises:
        WeightsError: the file is broken, or an array has the wrong shape, or is not finite in the model's dtype; with
            `strict`, also where a name is missing or unexpected, the file's spec computes something else, or a layer
            was replaced that is not in `skip`; or `skip` names no layer, or `model` is none of this framework.
    """
    check_model(model, nn.Module, "torch.nn.Module", "load_weights")
    own = unwrap(model)
    if strict:
        check_module(own, "load_weights", WeightsError, skip)
    return load_into(own, path, strict, skip, _slots, write_arrays)


def load(
    path: PathLike,
    dtype: torch.dtype | None = None,
    *,
    num_classes: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> nn.Module:
    """The model or layer that a file describes, in train mode.

    Args:
        path: a weights file.
        dtype: the dtype of all arrays; None keeps the file's.
        num_classes: where it is not the file's, the last layer is replaced by one of so many logits, for training
            on other classes; all others keep their weights.
        seed: draws that new layer, bit-identical in every framework.
        device: where the model goes; the CPU where None.

    Raises:
        WeightsError: the file is broken, its arrays do not fit its spec, or a value is too large for `dtype`.
        SpecError: the file's model has no last layer that gives logits, or `num_classes` or `seed` is invalid.
    """
    spec, arrays = read_whole(path, numpy_dtype(dtype, FLOATING), num_classes, seed)
    model = build(spec, device="meta")
    state: dict[str, Any] = {name: from_numpy(array) for name, array in arrays.items()}
    model.load_state_dict(state, strict=False, assign=True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked = torch.tensor(0)
    return model if device is None else model.to(device)


def _slots(model: nn.Module) -> dict[str, Slot]:
    own = tensors(model)
    return {name: Slot(tuple(array.shape), FLOATING.get(array.dtype)) for name, array in own.items()}
