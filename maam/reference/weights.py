"""Weights files in and out of referees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from maam.reference.models import Referee
from maam.weights import Mismatch, write_weights
from maam.weights.exchange import PathLike, load_into, numpy_dtype, read_whole
from maam.weights.file import DTYPES


def save_weights(model: Referee, path: PathLike) -> None:
    """Write the arrays, in the dtypes that they came in, and the spec to one file.

    Raises:
        WeightsError: the file cannot be written.
    """
    arrays = {name: array.astype(model.dtypes[name]) for name, array in model.arrays.items()}
    write_weights(path, model.spec, arrays)


def load_weights(model: Referee, path: PathLike, strict: bool = True) -> Mismatch:
    """Copy a file's arrays into a referee, rounded to its dtypes; returns the names that stand on one side only.

    Raises:
        WeightsError: the file is broken, or an array has the wrong shape, or is not finite in the model's dtype; with
            `strict`, also where a name is missing or unexpected, or the file's spec computes something else.
    """
    return load_into(model, path, strict, lambda referee: referee.dtypes, _write)


def load(path: PathLike, dtype: npt.DTypeLike = None) -> Referee:
    """The referee that a file describes; `dtype` None keeps the file's dtypes for saving (it computes in float64).

    Raises:
        WeightsError: the file is broken, its arrays do not fit its spec, or a value is too large for `dtype`.
    """
    wanted = None if dtype is None else np.dtype(dtype)
    return Referee(*read_whole(path, numpy_dtype(wanted, {known: known for known in DTYPES.values()})))


def _write(model: Referee, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    for name, array in arrays.items():
        model.arrays[name][...] = array.astype(np.float64)
