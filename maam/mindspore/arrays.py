"""The arrays of a MindSpore cell by canonical name, and conversion between tensors and NumPy arrays.

bfloat16 arrays have the dtype of ml_dtypes.
"""

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
"""MindSpore's names of arrays by their role; all other arrays have the names of the spec."""

DTYPES = {
    mstype.float16: np.dtype(np.float16),
    mstype.bfloat16: np.dtype(ml_dtypes.bfloat16),
    mstype.float32: np.dtype(np.float32),
    mstype.float64: np.dtype(np.float64),
    mstype.int32: np.dtype(np.int32),
}


def unwrap(model: nn.Cell) -> nn.Cell:
    """Return the cell inside the wrappers of mixed precision."""
    while not hasattr(model, "spec") and hasattr(model, "_backbone"):
        model = model._backbone
    return model


def mindspore_name(name: str, role: Role) -> str:
    """Return MindSpore's name of a parameter with a canonical name and a role."""
    path, dot, local = name.rpartition(".")
    return f"{path}{dot}{NAMES.get(role, local)}"


def parameters_by_name(model: nn.Cell) -> dict[str, Parameter]:
    """Return the cell's parameters and running statistics by canonical name.

    Names follow the structure, so they stay the same inside another cell. The names of wrappers of mixed precision are
    left out.
    """
    found = {
        ".".join(part for part in name.split(".") if part != "_backbone"): parameter
        for name, parameter in model.parameters_and_names()
    }
    names = {p.name: mindspore_name(p.name, p.role) for p in model.spec.parameters()}
    return {name: found[own] for name, own in names.items() if own in found}  # a user's own layer may have other names


def read_arrays(model: nn.Cell) -> dict[str, Array]:
    """Return copies of all parameters and running statistics by canonical name."""
    return {name: to_numpy(parameter) for name, parameter in parameters_by_name(model).items()}


def write_arrays(model: nn.Cell, arrays: Mapping[str, Array]) -> None:
    """Copy arrays into the parameters and running statistics of the same names, cast to their dtypes."""
    own = parameters_by_name(model)
    for name, array in arrays.items():
        assign(own[name], array)


def assign(parameter: Parameter, array: Array) -> None:
    """Copy an array into a parameter, cast to its dtype.

    It does not use `set_data`: after it, a graph that had already run kept reading the old memory.
    """
    parameter.copy_(from_numpy(np.asarray(array).astype(DTYPES[parameter.dtype])))


def to_numpy(tensor: Tensor) -> Array:
    """Return a copy of a tensor, bit for bit."""
    if tensor.dtype == mstype.bfloat16:  # MindSpore returns no bfloat16 array with NumPy 2; float32 has the same bits
        wide = np.array(tensor.astype(mstype.float32).asnumpy(), order="C")
        return (wide.view(np.uint32) >> 16).astype(np.uint16).view(ml_dtypes.bfloat16)
    return np.array(tensor.asnumpy(), order="C")


def from_numpy(array: Array) -> Tensor:
    """Return a tensor with a copy of an array, bit for bit."""
    if array.dtype == ml_dtypes.bfloat16:
        return Tensor(array.astype(np.float32)).astype(mstype.bfloat16)
    return Tensor(np.array(array, order="C"))
