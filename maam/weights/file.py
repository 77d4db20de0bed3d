"""The weights file: a safetensors file with the spec in its header."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from maam import _io
from maam._messages import listed, one_line
from maam.errors import SpecError, WeightsError
from maam.spec import Node, parse_json
from maam.weights.match import is_batch_counter, match, names_of
from maam.weights.sets import Selection, choose, find_sets

Array = np.ndarray[Any, Any]
FORMAT = "maam"
CHECKPOINT_FORMAT = "maam-checkpoint"
VERSION = "1"
CHECKSUM = "checksum"
"""The key of the checksum in the header; files of earlier versions do not have it, and are read without a check."""
MAX_HEADER = 8 << 20
"""The largest number of bytes of a header; the spec of a network with a thousand layers needs a tenth of it."""
CHECKPOINT_SUFFIXES = (".bin", ".ckpt", ".npz", ".pt", ".pth", ".tar")
_OF_OTHERS = ".air .h5 .json .keras .mindir .npy .onnx .pb .pickle .pkl .pt2 .pte .tflite .xml"
FOREIGN_SUFFIXES = (*CHECKPOINT_SUFFIXES, *_OF_OTHERS.split())
"""Suffixes of other formats, which the name of a weights file must not have."""
DTYPES = {
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
}


def write_weights(path: str | os.PathLike[str], spec: Node, arrays: Mapping[str, Array]) -> None:
    """Write a spec and its arrays to a weights file.

    Args:
        path: the file, usually with the suffix .safetensors.
        spec: the architecture.
        arrays: arrays by canonical name; float16, bfloat16, float32 or float64.

    Raises:
        WeightsError: `spec` is not a spec; the arrays do not fit it, have another dtype, or hold NaN or infinity;
            `path` has the suffix of another format; or the file cannot be written. An existing file is then unchanged.

    Example:
        >>> import os, tempfile
        >>> from maam import spec
        >>> from maam.weights import read_weights, write_weights
        >>> layer = spec.se(16)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "se.safetensors")
        ...     write_weights(path, layer, spec.draw(layer.parameters(), seed=0))
        ...     found, arrays = read_weights(path)
        >>> found == layer, arrays["fc1.weight"].shape
        (True, (1, 16, 1, 1))
    """
    check_path(path)
    if not isinstance(spec, Node):
        raise WeightsError(f"write_weights: expected a spec, got an object of type {type(spec).__name__}")
    for name, array in arrays.items():
        check_dtype(array.dtype, f"{path}: {listed([name])}")
    matched, _ = match(spec, arrays, source=f"{path}: not written")
    write_safetensors(path, matched, model_header(spec))


def read_weights(path: str | os.PathLike[str]) -> tuple[Node, dict[str, Array]]:
    """Return the spec and the arrays of a weights file.

    Args:
        path: a file written by `write_weights` or by `save_weights` of a backend.

    Returns:
        The spec, and the arrays by canonical name in the dtypes of the file.

    Raises:
        WeightsError: the file does not exist, is truncated or damaged, is not a weights file of maam, or has a later
            format version; its spec is invalid; or an array is not floating point.

    Example:
        >>> import os, tempfile
        >>> from maam import reference, weights
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "digits.safetensors")
        ...     reference.save_weights(reference.build("maam_digits", seed=0), path)
        ...     model, arrays = weights.read_weights(path)
        >>> model.name, len(arrays)
        ('maam_digits', 40)
    """
    header, tensors = _read_model(path)
    if (spec := _spec(path, header)) is None:
        raise WeightsError(
            f"{path}: a safetensors file without the header of maam; "
            "convert it with: maam convert SRC DST --spec PRESET"
        )
    return spec, _arrays(path, tensors)


def weights_bytes(spec: Node, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """Return the bytes of a weights file with more metadata, to put it into another file."""
    return serialize(arrays, {**metadata, **model_header(spec)})


def model_header(spec: Node) -> dict[str, str]:
    """Return the metadata of a weights file."""
    return {"format": FORMAT, "format_version": VERSION, "spec": spec.to_json()}


def parse_weights(data: bytes, source: str) -> tuple[Node, dict[str, Array], dict[str, str]]:
    """Return the spec, the arrays and the metadata that `weights_bytes` was called with.

    Raises:
        WeightsError: the data is damaged, or not a weights file; `source` names it in the message.
    """
    header, tensors = _parse(data, source)
    spec = _spec(source, header)
    if spec is None:
        raise WeightsError(f"{source}: the weights in this file have no header of maam")
    arrays, _ = match(spec, _arrays(source, tensors), source=source)
    return spec, arrays, {name: text for name, text in header.items() if name.startswith("maam.")}


def write_safetensors(path: str | os.PathLike[str], arrays: Mapping[str, Array], header: Mapping[str, str]) -> None:
    """Write arrays to a safetensors file with `header` as its metadata, and a checksum of both.

    Raises:
        WeightsError: `path` has the suffix of another format, or the file cannot be written. An existing file is then
            unchanged.
    """
    check_suffix(path)
    try:
        _io.write_bytes(path, serialize(arrays, header))
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written: {error.strerror or error}") from None


def read_header_and_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, str], dict[str, Array]]:
    """Return the metadata and the arrays of any safetensors file with floating-point arrays.

    Raises:
        WeightsError: the file does not exist, is truncated or is not a safetensors file, or an array is not floating
            point.
    """
    header, tensors = _read(path)
    return header, _arrays(path, tensors)


def read_safetensors(path: str | os.PathLike[str]) -> tuple[Node | None, dict[str, Array]]:
    """Return the spec and the arrays of any safetensors file; the spec is None without the header of maam.

    Raises:
        WeightsError: as in `read_weights`.
    """
    header, tensors = _read_model(path)
    return _spec(path, header), _arrays(path, tensors)


def read_set(
    path: str | os.PathLike[str], spec: Node | None = None, selection: Selection | None = None
) -> tuple[dict[str, Array], Node | None]:
    """Return one set of weights of any safetensors file by the names of the model, and the spec in its header, if any.

    Args:
        path: a weights file of maam, or a safetensors file of any origin.
        spec: the spec of the model, if it is known; it helps to find the set and the prefix of its names.
        selection: the set of weights and the prefix; None: selected automatically.

    Raises:
        WeightsError: as in `read_weights`; or the file has no set that `selection` names.
    """
    saved, arrays = read_safetensors(path)
    if saved is not None and selection in (None, Selection()):
        return arrays, saved
    node = saved or spec
    wanted = () if node is None else names_of(node)
    return choose(path, find_sets(arrays, lambda array: True, wanted), wanted, selection), saved


def check_path(path: object) -> None:
    """Check that an argument is a path.

    Raises:
        WeightsError: it is a model or another object.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise WeightsError(
            f"expected the path of a weights file, got an object of type {type(path).__name__}; save a model first: "
            "save_weights(model, path)"
        )


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Check that a file to write does not have the suffix of another format.

    Raises:
        WeightsError: the suffix is one of `FOREIGN_SUFFIXES`.
    """
    suffix = Path(path).suffix
    if suffix.lower() in FOREIGN_SUFFIXES:
        raise WeightsError(
            f"{path}: a weights file is a safetensors file, and {suffix} is the suffix of another format; use "
            ".safetensors. `maam convert SRC DST` converts it to .pth, .pt, .pth.tar or .ckpt, `maam export` to the "
            "formats of inference engines"
        )


def check_dtype(dtype: np.dtype[Any], what: str) -> None:
    """Check that weights files support a dtype; `what` names the array, for the message.

    Raises:
        WeightsError: the dtype is not float16, bfloat16, float32 or float64.
    """
    if dtype not in DTYPES.values():
        known = ", ".join(known.name for known in DTYPES.values())
        raise WeightsError(f"{what} has dtype {dtype}; expected one of {known}")


def _read_model(path: str | os.PathLike[str]) -> tuple[dict[str, str], list[tuple[str, dict[str, Any]]]]:
    """Read a file that must not be a training checkpoint."""
    header, tensors = _read(path)
    if header.get("format") == CHECKPOINT_FORMAT:
        raise WeightsError(
            f"{path}: this is a training checkpoint; the weights of its model are in the same folder, in "
            "best.safetensors and (after training) final.safetensors"
        )
    return header, tensors


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, str], list[tuple[str, dict[str, Any]]]]:
    """Return the metadata of a safetensors file, and its tensors in the form of the safetensors library."""
    check_path(path)
    try:
        return _parse(_read_bytes(path), path)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except OSError as error:
        is_folder = isinstance(error, IsADirectoryError)  # pathlib fails for names that are too long
        held = ", ".join(sorted(file.name for file in Path(path).glob("*.safetensors"))[:4]) if is_folder else ""
        advice = f"; it holds {held}: pass one of these files" if held else ""
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}{advice}") from None
    except _FormatError as error:
        foreign = Path(path).suffix.lower() in CHECKPOINT_SUFFIXES
        advice = "; convert it with: maam convert SRC DST --spec PRESET" if foreign else ""
        raise WeightsError(f"{error}{advice}") from None


class _FormatError(WeightsError):
    """File that is not a safetensors file."""


def _parse(data: bytes, path: str | os.PathLike[str]) -> tuple[dict[str, str], list[tuple[str, dict[str, Any]]]]:
    """Return the metadata and the tensors in the bytes of a safetensors file, after checking the checksum."""
    length, rest = int.from_bytes(data[:8], "little"), len(data) - 8
    try:
        if length > min(rest, MAX_HEADER):
            raise ValueError(f"a header of {length} bytes, expected at most {max(min(rest, MAX_HEADER), 0)}")
        tensors = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    except (safetensors.SafetensorError, ValueError) as error:
        raise _FormatError(f"{path}: not a safetensors file, or truncated: {one_line(error, 200)}") from None
    table, end = _table(data)
    header = table.get("__metadata__") or {}
    if header.get("format") in (FORMAT, CHECKPOINT_FORMAT) and CHECKSUM in header:
        given = {name: text for name, text in header.items() if name != CHECKSUM}
        if _checksum(given, table, memoryview(data)[end:]) != header[CHECKSUM]:
            raise WeightsError(
                f"{path}: the file is damaged: its content does not have the checksum in its header; use another copy. "
                "If a program changed the file on purpose, remove 'checksum' from its metadata"
            )
    return header, tensors


def _read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a regular file, or only its start if it cannot be a safetensors file.

    Raises:
        OSError: the file cannot be read.
    """
    with _io.open_regular(path) as file:
        start = file.read(8)
        return start if int.from_bytes(start, "little") > MAX_HEADER else start + file.read()


def _checksum(header: Mapping[str, str], table: Mapping[str, Any], data: memoryview) -> str:
    """Return the SHA-256 of the metadata, and of name, dtype, shape and bytes of each tensor in the order of names."""
    digest = hashlib.sha256(json.dumps(sorted(header.items())).encode())
    for name in sorted(set(table) - {"__metadata__"}):
        tensor = table[name]
        digest.update(json.dumps([name, tensor["dtype"], tensor["shape"]]).encode())
        digest.update(data[slice(*tensor["data_offsets"])])
    return f"sha256:{digest.hexdigest()}"


def serialize(arrays: Mapping[str, Array], header: Mapping[str, str]) -> bytes:
    """Return the bytes of a safetensors file with a checksum in its metadata.

    The metadata has a fixed order; the safetensors library orders it randomly.
    """
    header = {name: text for name, text in header.items() if name != CHECKSUM}
    contiguous = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    data = safetensors.numpy.save(contiguous, header)
    table, end = _table(data)
    marked = {**header, CHECKSUM: _checksum(header, table, memoryview(data)[end:])}
    text = json.dumps({**table, "__metadata__": marked}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the arrays start at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[end:]


def _table(data: bytes) -> tuple[dict[str, Any], int]:
    """Return the JSON table at the start of a safetensors file, and the position of its end."""
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
        except (ValueError, OverflowError):  # NumPy limits the number and size of dimensions
            raise WeightsError(
                f"{path}: {listed([name])} has a shape that NumPy does not support: {one_line(view['shape'], 200)}"
            ) from None
    return arrays
