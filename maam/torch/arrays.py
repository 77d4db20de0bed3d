"""The arrays of a PyTorch module by canonical name, and conversion between tensors and NumPy arrays.

bfloat16 arrays have the dtype of ml_dtypes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor, nn

from maam.weights.match import is_batch_counter, strip_prefixes

Array = np.ndarray[Any, Any]


class Wrapper(nn.Module):
    """A module that contains another one as `model`, computes the same, and is saved as the inner one."""

    model: nn.Module


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside DistributedDataParallel, DataParallel, AveragedModel, torch.compile or a `Wrapper`.

    The first four are recognized by their structure: a single module of a known name, and no parameters.
    """
    while (inner := _inside(model)) is not None:
        model = inner
    return model


def _inside(model: nn.Module) -> nn.Module | None:
    if isinstance(model, Wrapper):
        return model.model
    if len(model._modules) != 1 or model._parameters:
        return None
    return model._modules.get("_orig_mod", model._modules.get("module"))


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's own parameters and buffers by canonical name, without batch counters."""
    found = strip_prefixes(model.state_dict(keep_vars=True))
    return {name: tensor for name, tensor in found.items() if not is_batch_counter(name)}


def read_arrays(model: nn.Module) -> dict[str, Array]:
    """Return copies of all parameters and running statistics by canonical name."""
    return {name: to_numpy(tensor) for name, tensor in tensors(model).items()}


def write_arrays(model: nn.Module, arrays: Mapping[str, Array]) -> None:
    """Copy arrays into the parameters and buffers of the same names, cast to their dtypes."""
    own = tensors(model)
    with torch.no_grad():
        for name, array in arrays.items():
            own[name].copy_(from_numpy(array))


def to_numpy(tensor: Tensor) -> Array:
    """Return a copy of a tensor on any device, bit for bit."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16).copy()
    return tensor.numpy().copy()


def from_numpy(array: Array) -> Tensor:
    """Return a tensor with a copy of an array, bit for bit."""
    array = np.array(array, order="C")
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
