"""The arrays of a PyTorch module by canonical name, its modes, and conversion between tensors and NumPy arrays.

bfloat16 arrays have the dtype of ml_dtypes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor, nn

from maam.weights.match import INNER_WRAPPERS, is_batch_counter

Array = np.ndarray[Any, Any]


PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""The dtypes of the precisions in which models train and are optimized."""


class Wrapper(nn.Module):
    """A module that contains another one as `model`, computes the same, and is saved as the inner one."""

    model: nn.Module


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside DataParallel, AveragedModel, torch.compile, checkpoint_wrapper or a `Wrapper`.

    All but the last are recognized by their structure: a single module of a known name, and no parameters.
    """
    while (inner := _inside(model)) is not None:
        model = inner
    return model


def _inside(model: nn.Module) -> nn.Module | None:
    if isinstance(model, Wrapper):
        return model.model
    if len(model._modules) != 1 or model._parameters:
        return None
    ((name, inner),) = model._modules.items()
    return inner if name in ("module", *INNER_WRAPPERS) else None


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and running statistics by canonical name, without the names of wrappers at any depth."""
    return dict(_tensors(unwrap(model), ""))


def _tensors(module: nn.Module, path: str) -> Iterator[tuple[str, Tensor]]:
    buffers = {
        name: buffer for name, buffer in module._buffers.items() if name not in module._non_persistent_buffers_set
    }
    for name, tensor in (*module._parameters.items(), *buffers.items()):
        if tensor is not None and not is_batch_counter(name):
            yield f"{path}{name}", tensor
    for name, child in module._modules.items():
        if child is not None:
            yield from _tensors(unwrap(child), f"{path}{name}.")


def read_arrays(model: nn.Module) -> dict[str, Array]:
    """Return copies of all parameters and running statistics by canonical name."""
    return {name: to_numpy(tensor) for name, tensor in tensors(model).items()}


def write_arrays(model: nn.Module, arrays: Mapping[str, Array]) -> None:
    """Copy arrays into the parameters and buffers of the same names, cast to their dtypes."""
    own = tensors(model)
    with torch.no_grad():
        for name, array in arrays.items():
            own[name].copy_(from_numpy(array))


@contextmanager
def preserve_modes(module: nn.Module) -> Iterator[dict[nn.Module, bool]]:
    """Restore the mode, train or eval, of each layer on leaving the context; yield the modes.

    `train()` of the whole module would change layers that a user has frozen.
    """
    modes = {part: part.training for part in module.modules()}
    try:
        yield modes
    finally:
        for part, training in modes.items():
            part.training = training


def dtype_name(dtype: torch.dtype) -> str:
    """Return NumPy's name of a dtype, such as "float32"."""
    return str(dtype).removeprefix("torch.")


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
