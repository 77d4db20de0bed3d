"""Weights files in and out of MindSpore cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from mindspore import nn

from maam.mindspore.arrays import DTYPES, parameters_by_name, read_arrays, unwrap, write_arrays
from maam.mindspore.models import build
from maam.weights import Mismatch, write_weights
from maam.weights.exchange import PathLike, load_into, numpy_dtype, read_whole, spec_of
from maam.weights.file import DTYPES as FILE_DTYPES

FLOATING = {ours: array for ours, array in DTYPES.items() if array in FILE_DTYPES.values()}
"""The dtypes that weights files hold."""


def save_weights(model: nn.Cell, path: PathLike) -> None:
    """Write the parameters and running statistics of a model or a single layer, with its spec, to one file.

    Raises:
        WeightsError: the model was not built by maam, or the file cannot be written.
    """
    own = unwrap(model)
    write_weights(path, spec_of(own), read_arrays(own))


def load_weights(model: nn.Cell, path: PathLike, strict: bool = True) -> Mismatch:
    """Copy a file's arrays into a model, cast to its dtypes; returns the names that stand on one side only.

    Raises:
        WeightsError: the file is broken, or an array has the wrong shape, or is not finite in the model's dtype; with
            `strict`, also where a name is missing or unexpected, or the file's spec computes something else.
    """
    return load_into(unwrap(model), path, strict, _dtypes, write_arrays)


def load(path: PathLike, dtype: Any = None) -> nn.Cell:
    """The model or layer that a file describes, in inference state; `dtype` None keeps the file's dtypes.

    Raises:
        WeightsError: the file is broken, its arrays do not fit its spec, or a value is too large for `dtype`.
    """
    spec, arrays = read_whole(path, numpy_dtype(dtype, FLOATING))
    model = build(spec)
    kept = {array: ours for ours, array in FLOATING.items()}
    for name, parameter in parameters_by_name(model).items():
        parameter.set_dtype(kept[arrays[name].dtype])
    write_arrays(model, arrays)
    return model


def _dtypes(model: nn.Cell) -> dict[str, np.dtype[Any]]:
    own = parameters_by_name(model)
    return {name: FLOATING[parameter.dtype] for name, parameter in own.items() if parameter.dtype in FLOATING}
