"""Reading and writing weights files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from maam._io import write_bytes
from maam._messages import is_batch_counter, listed
from maam.errors import SpecError, WeightsError
from maam.spec import Node, parse_json
from maam.weights.match import match

Array = np.ndarray[Any, Any]
FORMAT = "maam"
CHECKPOINT_FORMAT = "maam-checkpoint"
VERSION = "1"
CHECKPOINT_SUFFIXES = (".bin", ".ckpt", ".npz", ".pt", ".pth", ".tar")
_OF_OTHERS = ".air .h5 .json .keras .mindir .npy .onnx .pb .pickle .pkl .pt2 .pte .tflite .xml"
FOREIGN_SUFFIXES = (*CHECKPOINT_SUFFIXES, *_OF_OTHERS.split())
"""What other programs, and commands of maam, take for another format than safetensors."""
DTYPES = {
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
}


def write_weights(path: str | os.PathLike[str], spec: Node, arrays: Mapping[str, Array]) -> None:
    """Write `arrays` (by canonical name; float16, bfloat16, float32 or float64) and `spec` to `path`.

    Raises:
        WeightsError: `spec` is none, the arrays are not those that it needs, hold NaN or infinity or have another
            dtype, `path` has the suffix of another format, or the file cannot be written; a file that was there stays.
    """
    check_path(path)
    if not isinstance(spec, Node):
        raise WeightsError(f"write_weights: expected a spec, got an object of type {type(spec).__name__}")
    for name, array in arrays.items():
        check_dtype(array.dtype, f"{path}: {listed([name])}")
    matched, _ = match(spec, arrays, source=f"{path}: not written")
    write_safetensors(path, matched, {"format": FORMAT, "format_version": VERSION, "spec": spec.to_json()})


def read_weights(path: str | os.PathLike[str]) -> tuple[Node, dict[str, Array]]:
    """The spec of a weights file, and its arrays by canonical name with the dtypes that they were saved in.

    Raises:
        WeightsError: there is no such file, it is truncated or no weights file of maam, it is of a later format
            version, its spec is invalid, or an array has a dtype that is not floating point.
    """
    header, tensors = _read_model(path)
    if (spec := _spec(path, header)) is None:
        raise WeightsError(
            f"{path}: a safetensors file, but without maam's header; "
            "convert it with: maam convert SRC DST --spec PRESET"
        )
    return spec, _arrays(path, tensors)


def write_safetensors(path: str | os.PathLike[str], arrays: Mapping[str, Array], header: Mapping[str, str]) -> None:
    """Write `arrays` to a safetensors file with `header` as its metadata, in one step.

    Raises:
        WeightsError: `path` has the suffix of another format, or the file cannot be written; one that was there stays.
    """
    check_suffix(path)
    contiguous = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    try:
        write_bytes(path, _serialize(contiguous, dict(header)))
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written: {error.strerror or error}") from None


def read_header_and_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, str], dict[str, Array]]:
    """The metadata and the arrays of any safetensors file with floating-point arrays.

    Raises:
        WeightsError: there is no such file, it is truncated or no safetensors file, or an array is not floating point.
    """
    header, tensors = _read(path)
    return header, _arrays(path, tensors)


def read_safetensors(path: str | os.PathLike[str]) -> tuple[Node | None, dict[str, Array]]:
    """As `read_weights`, for a safetensors file of any origin: the spec is None where there is no header of maam.

    Raises:
        WeightsError: as `read_weights` does.
    """
    header, tensors = _read_model(path)
    return _spec(path, header), _arrays(path, tensors)


def check_path(path: object) -> None:
    """Refuse a model, or anything else, where the path of a file is expected.

    Raises:
        WeightsError: it is no path.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise WeightsError(
            f"expected the path of a weights file, got an object of type {type(path).__name__}; write a model to one "
            "first, with save_weights(model, path)"
        )


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Refuse a name under which other programs, and commands of maam, would take the file for one of another format.

    Raises:
        WeightsError: the suffix is one of `FOREIGN_SUFFIXES`.
    """
    suffix = Path(path).suffix
    if suffix.lower() in FOREIGN_SUFFIXES:
        raise WeightsError(
            f"{path}: a weights file is a safetensors file, and {suffix} stands for another format; give a name that "
            "ends in .safetensors; `maam convert SRC DST` makes .pth, .pt, .pth.tar or .ckpt of it, and `maam export` "
            "what inference engines read"
        )


def check_dtype(dtype: np.dtype[Any], what: str) -> None:
    """Refuse a dtype that no weights file holds; `what` names its owner in the message.

    Raises:
        WeightsError: it is none of float16, bfloat16, float32, float64.
    """
    if dtype not in DTYPES.values():
        known = ", ".join(known.name for known in DTYPES.values())
        raise WeightsError(f"{what} has dtype {dtype}; expected one of {known}")


def _read_model(path: str | os.PathLike[str]) -> tuple[dict[str, str], list[tuple[str, dict[str, Any]]]]:
    """As `_read`, of a file that holds the weights of a model."""
    header, tensors = _read(path)
    if header.get("format") == CHECKPOINT_FORMAT:
        raise WeightsError(
            f"{path}: a training checkpoint; the weights of its model lie beside it, in best.safetensors and, when "
            "training is over, final.safetensors"
        )
    return header, tensors


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, str], list[tuple[str, dict[str, Any]]]]:
    """The metadata of a safetensors file, and its tensors as safetensors gives them."""
    check_path(path)
    try:
        data = Path(path).read_bytes()
        tensors = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except OSError as error:
        held = ", ".join(sorted(file.name for file in Path(path).glob("*.safetensors"))[:4])
        advice = f"; it holds {held}: name one of them" if held else ""
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}{advice}") from None
    except (safetensors.SafetensorError, ValueError) as error:
        foreign = Path(path).suffix.lower() in CHECKPOINT_SUFFIXES
        advice = "; make a weights file of it: maam convert SRC DST --spec PRESET" if foreign else ""
        raise WeightsError(f"{path}: not a safetensors file, or cut short: {_one_line(error)}{advice}") from None
    return _table(data)[0].get("__metadata__") or {}, tensors


def _serialize(arrays: dict[str, Array], header: dict[str, str]) -> bytes:
    """The bytes of the file, the same for the same content: the library gives the metadata a random order."""
    data = safetensors.numpy.save(arrays, header)
    table, end = _table(data)
    text = json.dumps({**table, "__metadata__": header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the arrays are to start at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[end:]


def _table(data: bytes) -> tuple[dict[str, Any], int]:
    """The JSON table at the start of a valid safetensors file, and where it ends."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), end


def _spec(path: str | os.PathLike[str], header: Mapping[str, str]) -> Node | None:
    if header.get("format") != FORMAT:
        return None
    if header.get("format_version") != VERSION:
        found = header.get("format_version", "none")[:20]
        raise WeightsError(f"{path}: format version {found!r}, expected {VERSION!r}; update maam to read it")
    try:
        return parse_json(header.get("spec", ""))
    except SpecError as error:
        raise WeightsError(f"{path}: the header's spec is invalid: {error}") from None


def _arrays(path: str | os.PathLike[str], tensors: list[tuple[str, dict[str, Any]]]) -> dict[str, Array]:
    arrays = {}
    for name, view in sorted(tensors, key=lambda item: item[0]):
        if is_batch_counter(name):  # an integer
            continue
        if view["dtype"] not in DTYPES:
            raise WeightsError(
                f"{path}: {listed([name])} has dtype {view['dtype']}; expected one of {', '.join(DTYPES)}"
            )
        try:
            arrays[name] = np.frombuffer(view["data"], DTYPES[view["dtype"]]).reshape(view["shape"])
        except (ValueError, OverflowError):  # NumPy has fewer dimensions, and smaller ones, than the format
            raise WeightsError(f"{path}: {listed([name])} has a shape of no array: {_shorten(view['shape'])}") from None
    return arrays


def _one_line(error: Exception) -> str:
    return _shorten(" ".join(str(error).split()))


def _shorten(value: object) -> str:
    return str(value)[:200]
