"""Weights files in and out of PyTorch modules."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
import torch
from torch import nn

from maam import spec as specs
from maam._io import write_bytes
from maam._messages import listed
from maam.errors import SpecError, WeightsError
from maam.spec import Node, parse_json
from maam.spec.presets import resolve
from maam.torch.arrays import from_numpy, read_arrays, tensors, to_numpy, unwrap, write_arrays
from maam.torch.modules import Container, check_forward, check_module, instantiate
from maam.weights import Mismatch
from maam.weights.exchange import PathLike, Slot, check_model, load_into, numpy_dtype, read_whole, save_model
from maam.weights.match import is_batch_counter


def build(
    spec: specs.Node | str,
    *,
    seed: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> nn.Module:
    """The module of a spec, in train mode, with the spec at `.spec`.

    Args:
        spec: a spec, or the name of a preset.
        seed: draw the initial weights by NumPy, bit-identical in every framework; None: by PyTorch's generator,
            from the same distributions.
        device: where the parameters are made.
        dtype: their dtype, a floating one; PyTorch's default dtype where None.
        options: of the preset (`num_classes`, ...).

    Raises:
        SpecError: `spec` is neither, a node is of a kind that this framework does not have, or the seed, the dtype or
            an option is invalid.
        PresetError: there is no preset of that name, or it has no such option.
    """
    node = resolve(spec, **options)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise SpecError(f"dtype: expected a floating torch.dtype such as torch.float16, got {dtype!r}")
    module = instantiate(node, device=device, dtype=dtype)
    module.spec = node  # type: ignore[assignment]
    if isinstance(module, Container):
        module.rule = specs.input_rule(node)
    if seed is not None:
        write_arrays(module, specs.draw(node.parameters(), seed))
    return module


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


Array = np.ndarray[Any, Any]
_CONTENT = "expected a state_dict, bare or in a dict under the key 'state_dict'; save model.state_dict() alone"


def read_checkpoint(path: Path, spec: Node | None = None) -> tuple[dict[str, Array], Node | None]:
    """The arrays of a checkpoint by their names in it, batch counters left out, and the spec where it holds one.

    Tensors come to the CPU, from wherever they were saved. Nothing in the file is run.

    Raises:
        WeightsError: the file is cut short, no checkpoint, holds Python objects, or a tensor is not dense or not
            of float16, bfloat16, float32 or float64.
    """
    content = _load(path)
    state, text = content, None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        state, text = content["state_dict"], content.get("spec")
    if not isinstance(state, Mapping):
        raise WeightsError(f"{path}: holds a {type(state).__name__}; {_CONTENT}")
    arrays = {name: _array(path, name, value) for name, value in state.items() if not is_batch_counter(str(name))}
    return arrays, _spec(path, text) if isinstance(text, str) else None


def write_checkpoint(path: Path, spec: Node, arrays: Mapping[str, Array]) -> None:
    """Write a state_dict with canonical names; for the suffix `.pth.tar` a dict of it and the spec's JSON text.

    Raises:
        OSError: the file cannot be written; a file that was there stays.
    """
    state = {p.name: from_numpy(arrays[p.name]) for p in spec.parameters()}
    whole = path.name.endswith(".pth.tar")
    buffer = io.BytesIO()
    torch.save({"state_dict": state, "spec": spec.to_json()} if whole else state, buffer)
    write_bytes(path, buffer.getvalue())


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _unpickle(path, file)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from None


def _unpickle(path: Path, file: BinaryIO) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats, which do load
            return torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # of many kinds, and PyTorch's own advice is to run the code in the file
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise WeightsError(
                f"{path}: holds a Python object, {found[1][:100]}, and loading one can run code; "
                "save model.state_dict() alone, where you trust the file"
            ) from None
        raise WeightsError(f"{path}: no PyTorch checkpoint of tensors alone, or cut short; save it again") from None


def _array(path: Path, name: object, value: object) -> Array:
    if not isinstance(name, str) or not isinstance(value, torch.Tensor):
        raise WeightsError(f"{path}: holds a {type(value).__name__} under {listed([str(name)])}; {_CONTENT}")
    if value.dtype not in FLOATING:
        known = ", ".join(dtype.name for dtype in FLOATING.values())
        raise WeightsError(
            f"{path}: {listed([name])} has dtype {str(value.dtype).removeprefix('torch.')}; expected one of {known}"
        )
    if not _is_dense(value):
        raise WeightsError(f"{path}: {listed([name])} is not a dense tensor with data of its own; save a dense one")
    return to_numpy(value)


def _is_dense(tensor: torch.Tensor) -> bool:
    """False for sparse tensors, for those without data, and for few values expanded to a shape without end."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _spec(path: Path, text: str) -> Node:
    try:
        return parse_json(text)
    except SpecError as error:
        raise WeightsError(f"{path}: the spec in it is invalid: {error}") from None
