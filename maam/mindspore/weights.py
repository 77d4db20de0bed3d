"""Weights files in and out of MindSpore cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mindspore import nn

from maam.errors import WeightsError
from maam.mindspore.arrays import DTYPES, parameters_by_name, read_arrays, unwrap, write_arrays
from maam.mindspore.conformity import check_cell, check_construct
from maam.mindspore.models import build
from maam.weights import Mismatch
from maam.weights.exchange import PathLike, Slot, check_model, load_into, numpy_dtype, read_whole, save_model
from maam.weights.file import DTYPES as FILE_DTYPES

FLOATING = {ours: array for ours, array in DTYPES.items() if array in FILE_DTYPES.values()}
"""The dtypes that weights files hold."""


def save_weights(model: nn.Cell, path: PathLike) -> None:
    """Write the parameters and running statistics of a model or a single layer, with its spec, to one file.

    Raises:
        WeightsError: the model was not built by maam, or has a layer that its spec does not say, or arrays that do not
            fit it or are not finite; or the file cannot be written.
    """
    check_model(model, nn.Cell, "mindspore.nn.Cell", "save_weights")
    own = unwrap(model)
    check_cell(own, "save_weights", WeightsError)
    check_construct(own, "save_weights", WeightsError)
    save_model(path, own, read_arrays(own))


def load_weights(model: nn.Cell, path: PathLike, strict: bool = True, skip: Sequence[str] = ()) -> Mismatch:
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
    check_model(model, nn.Cell, "mindspore.nn.Cell", "load_weights")
    own = unwrap(model)
    if strict:
        check_cell(own, "load_weights", WeightsError, skip)
    return load_into(own, path, strict, skip, _slots, write_arrays)


def load(path: PathLike, dtype: Any = None, *, num_classes: int | None = None, seed: int = 0) -> nn.Cell:
    """The model or layer that a file describes, in inference state.

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
    spec, arrays = read_whole(path, numpy_dtype(dtype, FLOATING), num_classes, seed)
    model = build(spec)
    kept = {array: ours for ours, array in FLOATING.items()}
    for name, parameter in parameters_by_name(model).items():
        parameter.set_dtype(kept[arrays[name].dtype])
    write_arrays(model, arrays)
    return model


def _slots(model: nn.Cell) -> dict[str, Slot]:
    own = parameters_by_name(model)
    return {name: Slot(tuple(array.shape), FLOATING.get(array.dtype)) for name, array in own.items()}
