"""Weights files in and out of referees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from maam.errors import WeightsError
from maam.reference.models import Referee
from maam.weights import Mismatch
from maam.weights.exchange import PathLike, Slot, load_into, numpy_dtype, read_whole, save_model
from maam.weights.file import DTYPES


def save_weights(model: Referee, path: PathLike) -> None:
    """Write the arrays, in the dtypes that they came in, and the spec to one file.

    Raises:
        WeightsError: an array is not finite, or the file cannot be written.
    """
    arrays = {name: array.astype(model.dtypes[name]) for name, array in model.arrays.items()}
    save_model(path, model, arrays)


def load_weights(model: Referee, path: PathLike, strict: bool = True, skip: Sequence[str] = ()) -> Mismatch:
    """Copy a file's arrays into a referee, rounded to its dtypes; returns the names that stand on one side only.

    Args:
        model: a model or layer of maam.
        path: a weights file.
        strict: whether every name must stand on both sides, and the file's spec compute the same as the model's.
        skip: names of layers, such as "classifier", that stay as they are: what the file has for them is left out.

    Raises:
        WeightsError: the file is broken, or an array has the wrong shape, or is not finite in the model's dtype; with
            `strict`, also where a name is missing or unexpected, or the file's spec computes something else; or
            `skip` names no layer.
    """
    return load_into(model, path, strict, skip, _slots, _write)


def load(path: PathLike, dtype: npt.DTypeLike = None, *, num_classes: int | None = None, seed: int = 0) -> Referee:
    """The referee that a file describes; `dtype` None keeps the file's dtypes for saving (it computes in float64).

    Args:
        path: a weights file.
        dtype: the dtype of all arrays; None keeps the file's.
        num_classes: where it is not the file's, the last layer is replaced by one of so many logits, for training
            on other classes; all others keep their weights.
        seed: draws that new layer, bit-identical in every framework.

    Raises:
        WeightsError: the file is broken, its arrays do not fit its spec, or a value is too large for `dtype`.
        SpecError: the file's model has no last layer that gives logits, or `num_classes` or `seed` is invalid.
    """
    try:
        wanted = None if dtype is None else np.dtype(dtype)
    except TypeError:
        raise WeightsError(f"dtype: expected a NumPy dtype or its name, got {dtype!r}") from None
    known = {dtype: dtype for dtype in DTYPES.values()}
    return Referee(*read_whole(path, numpy_dtype(wanted, known), num_classes, seed))


def _write(model: Referee, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    for name, array in arrays.items():
        model.arrays[name][...] = array.astype(np.float64)


def _slots(model: Referee) -> dict[str, Slot]:
    return {name: Slot(array.shape, model.dtypes[name]) for name, array in model.arrays.items()}
