"""Reading and writing weights files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from maam.errors import SpecError, WeightsError
from maam.files import write_bytes
from maam.spec import Node, parse_json

Array = np.ndarray[Any, Any]
FORMAT = "maam"
VERSION = "1"
DTYPES = {
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
}


def write_weights(path: str | os.PathLike[str], spec: Node, arrays: Mapping[str, Array]) -> None:
    """Write `arrays` (by canonical name; float16, bfloat16, float32 or float64) and `spec` to `path`.

    Raises:
        WeightsError: an array has another dtype, or the file cannot be written; a file that was there stays.
    """
    for name, array in arrays.items():
        if array.dtype not in DTYPES.values():
            raise WeightsError(f"{path}: {name} has dtype {array.dtype}; expected one of {_dtype_names()}")
    header = {"format": FORMAT, "format_version": VERSION, "spec": spec.to_json()}
    contiguous = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    try:
        write_bytes(path, safetensors.numpy.save(contiguous, header))
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written: {error.strerror or error}") from None


def read_weights(path: str | os.PathLike[str]) -> tuple[Node, dict[str, Array]]:
    """The spec of a weights file, and its arrays by canonical name with the dtypes that they were saved in.

    Raises:
        WeightsError: there is no such file, it is truncated or no weights file of maam, it is of a later format
            version, its spec is invalid, or an array has a dtype that is not floating point.
    """
    data = _read(path)
    header = _header(path)
    if header.get("format") != FORMAT:
        raise WeightsError(
            f"{path}: a safetensors file, but without maam's header; "
            "convert it with: maam convert SRC DST --spec PRESET"
        )
    if header.get("format_version") != VERSION:
        found = header.get("format_version", "none")[:20]
        raise WeightsError(f"{path}: format version {found!r}, expected {VERSION!r}; update maam to read it")
    try:
        spec = parse_json(header.get("spec", ""))
    except SpecError as error:
        raise WeightsError(f"{path}: the header's spec is invalid: {error}") from None
    return spec, _arrays(path, data)


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from None


def _header(path: str | os.PathLike[str]) -> dict[str, str]:
    try:
        with safetensors.safe_open(os.fspath(path), "numpy") as file:
            return dict(file.metadata() or {})
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: not a safetensors file, or cut short: {_one_line(error)}") from None


def _arrays(path: str | os.PathLike[str], data: bytes) -> dict[str, Array]:
    arrays = {}
    for name, view in sorted(safetensors.deserialize(data), key=lambda item: item[0]):
        if view["dtype"] not in DTYPES:
            raise WeightsError(f"{path}: {name} has dtype {view['dtype']}; expected one of {', '.join(DTYPES)}")
        arrays[name] = np.frombuffer(view["data"], DTYPES[view["dtype"]]).reshape(view["shape"])
    return arrays


def _dtype_names() -> str:
    return ", ".join(dtype.name for dtype in DTYPES.values())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
