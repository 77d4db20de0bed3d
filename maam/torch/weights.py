"""Weights files in and out of PyTorch modules."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import nn

from maam.torch.arrays import from_numpy, read_arrays, tensors, unwrap, write_arrays
from maam.torch.models import build
from maam.weights import Mismatch, write_weights
from maam.weights.exchange import PathLike, load_into, numpy_dtype, read_whole, spec_of

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
        WeightsError: the model was not built by maam, or the file cannot be written.
    """
    own = unwrap(model)
    write_weights(path, spec_of(own), read_arrays(own))


def load_weights(model: nn.Module, path: PathLike, strict: bool = True) -> Mismatch:
    """Copy a file's arrays into a model, cast to its dtypes; returns the names that stand on one side only.

    Raises:
        WeightsError: the file is broken, or an array has the wrong shape, or is not finite in the model's dtype; with
            `strict`, also where a name is missing or unexpected, or the file's spec computes something else.
    """
    return load_into(unwrap(model), path, strict, _dtypes, write_arrays)


def load(path: PathLike, dtype: torch.dtype | None = None) -> nn.Module:
    """The model or layer that a file describes, in train mode, on the CPU; `dtype` None keeps the file's dtypes.

    Raises:
        WeightsError: the file is broken, its arrays do not fit its spec, or a value is too large for `dtype`.
    """
    spec, arrays = read_whole(path, numpy_dtype(dtype, FLOATING))
    model = build(spec, device="meta")
    state: dict[str, Any] = {name: from_numpy(array) for name, array in arrays.items()}
    model.load_state_dict(state, strict=False, assign=True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked = torch.tensor(0)
    return model


def _dtypes(model: nn.Module) -> dict[str, np.dtype[Any]]:
    return {name: FLOATING[tensor.dtype] for name, tensor in tensors(model).items() if tensor.dtype in FLOATING}
