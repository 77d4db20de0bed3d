"""The arrays of a MindSpore cell, by canonical name, as NumPy arrays (bfloat16 by ml_dtypes)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore import dtype as mstype

from maam.spec import Role

Array = np.ndarray[Any, Any]

NAMES = {
    Role.NORM_WEIGHT: "gamma",
    Role.NORM_BIAS: "beta",
    Role.RUNNING_MEAN: "moving_mean",
    Role.RUNNING_VAR: "moving_variance",
}
"""What MindSpore calls an array of a role; all others it calls as the spec does."""

DTYPES = {
    mstype.float16: np.dtype(np.float16),
    mstype.bfloat16: np.dtype(ml_dtypes.bfloat16),
    mstype.float32: np.dtype(np.float32),
    mstype.float64: np.dtype(np.float64),
    mstype.int32: np.dtype(np.int32),
}


def unwrap(model: nn.Cell) -> nn.Cell:
    """The cell inside the wrappers of mixed precision."""
    while not hasattr(model, "spec") and hasattr(model, "_backbone"):
        model = model._backbone
    return model


def mindspore_name(name: str, role: Role) -> str:
    """The name in a cell of the parameter with a canonical name and a role."""
    path, dot, local = name.rpartition(".")
    return f"{path}{dot}{NAMES.get(role, local)}"


def parameters_by_name(model: nn.Cell) -> dict[str, Parameter]:
    """The cell's own parameters and running statistics by canonical name.

    Names follow the structure, so they do not change when the cell is put into another one. Mixed precision
    wraps cells: the wrapper's part of the name does not count.
    """
    found = {
        ".".join(part for part in name.split(".") if part != "_backbone"): parameter
        for name, parameter in model.parameters_and_names()
    }
    names = {p.name: mindspore_name(p.name, p.role) for p in model.spec.parameters()}
    return {name: found[own] for name, own in names.items() if own in found}  # a user's own layer may have others


def read_arrays(model: nn.Cell) -> dict[str, Array]:
    """Copies of all parameters and running statistics."""
    return {name: to_numpy(parameter) for name, parameter in parameters_by_name(model).items()}


def write_arrays(model: nn.Cell, arrays: Mapping[str, Array]) -> None:
    """Copy `arrays` into the parameters and running statistics of the same names, cast to their dtypes."""
    own = parameters_by_name(model)
    for name, array in arrays.items():
        assign(own[name], array)


def assign(parameter: Parameter, array: Array) -> None:
    """Copy an array into a parameter, cast to its dtype.

    Not by `set_data`: a graph that had run was seen to go on with the memory that it knew before.
    """
    parameter.copy_(from_numpy(np.asarray(array).astype(DTYPES[parameter.dtype])))


def to_numpy(tensor: Tensor) -> Array:
    """A copy of a tensor, bit for bit."""
    array = np.array(tensor.asnumpy(), order="C")
    if tensor.dtype == mstype.bfloat16:  # a NumPy type of MindSpore's own, of the same bits
        return array.view(np.uint16).view(ml_dtypes.bfloat16)
    return array


def from_numpy(array: Array) -> Tensor:
    """A tensor with a copy of an array, bit for bit."""
    if array.dtype == ml_dtypes.bfloat16:
        return Tensor(array.astype(np.float32)).astype(mstype.bfloat16)
    return Tensor(np.array(array, order="C"))
