"""Plain PyTorch checkpoints: a state_dict, alone or in a dict under the key `state_dict`."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from maam.errors import SpecError, WeightsError
from maam.files import write_bytes
from maam.names import is_batch_counter, listed
from maam.spec import Node, parse_json
from maam.torch.arrays import from_numpy, to_numpy
from maam.torch.weights import FLOATING

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
