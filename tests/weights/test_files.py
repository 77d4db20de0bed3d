"""Weights files: writing, the header, and errors for broken files."""

import errno
import json
import os
from functools import partial
from unittest.mock import Mock

import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file, save

from maam import spec
from maam.backend.convert import convert
from maam.errors import WeightsError
from maam.weights import read_weights, write_weights
from tests.errors import error_of
from tests.weights.helpers import BACKENDS, arbitrary, backend_named, bits, edited

FC = spec.Sequential(children={"fc": spec.Linear(in_features=2, out_features=1)})
ARRAYS = {"fc.weight": np.float32([[1, 2]]), "fc.bias": np.float32([3])}
HEADER = {"format": "maam", "format_version": "1", "spec": FC.to_json()}
WHOLE = save(ARRAYS, HEADER)
FAULTS = ["pathlib.Path.write_bytes", "os.fsync", "pathlib.Path.replace", "pathlib.Path.chmod", "tempfile.mkstemp"]
FORMATS = {".safetensors": "reference", ".pth": "torch", ".pt": "torch", ".pth.tar": "torch", ".ckpt": "mindspore"}
full = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"old")
    return path


def _write_half(self, data):
    with self.open("wb") as file:
        file.write(data[: len(data) // 2])
    full()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("writer", [*BACKENDS, *FORMATS])
def test_a_failed_write_does_not_change_the_old_file(writer, weights, tmp_path, monkeypatch, fault):
    """In `save_weights` of each backend, and in a conversion to each format."""
    backend = backend_named(FORMATS.get(writer, writer))
    old = tmp_path / "folder" / f"old{'.safetensors' if writer in BACKENDS else writer}"
    old.parent.mkdir()
    old.write_bytes(b"old")
    write = partial(backend.save_weights, backend.build(FC)) if writer in BACKENDS else partial(convert, weights)
    with monkeypatch.context() as patch:
        patch.setattr(fault, full if fault != "pathlib.Path.write_bytes" else _write_half)
        if (writer, fault) == (".ckpt", "pathlib.Path.write_bytes"):
            patch.setattr("mindspore.train.serialization._write_parameter_bytes_data", full)
        message = error_of(WeightsError, write, old)
    assert message == f"{old}: cannot be written: No space left on device"
    assert old.read_bytes() == b"old"
    assert os.listdir(old.parent) == [old.name]


def test_names_suffixes_and_paths(backend, tmp_path):
    write = partial(backend.save_weights, backend.build(FC))
    for name in ("x.pth", "x.PT", "x.ckpt", "x.npz", "x.pth.tar", "x.onnx", "x.pt2", "x.json"):
        message = error_of(WeightsError, write, tmp_path / name)
        assert "is the suffix of another format; use .safetensors. `maam conv" in message
    assert "expected the path of a weights file, got an object of type NoneType" in error_of(WeightsError, write, None)
    assert error_of(WeightsError, write, tmp_path).endswith("cannot be written: Is a directory")
    path = tmp_path / "none" / "weights.safetensors"
    assert error_of(WeightsError, write, path) == f"{path}: cannot be written: No such file or directory"
    message = error_of(WeightsError, write_weights, tmp_path / "x.safetensors", "maam_digits", {})
    assert "write_weights: expected a spec, got an object of type str" in message
    assert not list(tmp_path.iterdir())
    names = ["x", "x.weights", "x.v1", "x" * 243 + ".safetensors", "\u00e4" * 121 + ".safetensors"]  # the longest
    for name in names:
        write(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == sorted(names)


DTYPE = "expected one of float16, bfloat16, float32, float64"
OTHER_DTYPES = ("int64", "bool", "complex64", "float128" if hasattr(np, "float128") else "int8")
NOT_WRITTEN = "not written.*does not fit the model; "


def test_invalid_arrays_are_not_written(old):
    for changes, message in (
        ({"x": np.zeros(1, np.float32)}, f"{NOT_WRITTEN}unexpected: x"),
        ({"fc.bias": None}, f"{NOT_WRITTEN}missing: fc.bias"),
        ({"fc.bias": np.zeros(2, np.float32)}, rf"{NOT_WRITTEN}wrong shape: fc.bias \(2,\) instead of \(1,\)"),
        ({"fc.bias": ARRAYS["fc.bias"] * np.nan}, "not written.*fc.bias"),
        ({"\udcff": np.zeros(1, np.float32)}, rf"{NOT_WRITTEN}unexpected: '\\udcff'"),
        *(({"fc.bias": np.ones(1, dtype)}, f"fc.bias has dtype {dtype}; {DTYPE}$") for dtype in OTHER_DTYPES),
    ):
        arrays = {name: array for name, array in (ARRAYS | changes).items() if array is not None}
        with pytest.raises(WeightsError, match=f"^{old}: {message}"):
            write_weights(old, FC, arrays)
        assert old.read_bytes() == b"old"


def test_models_that_maam_did_not_build_are_refused(backend, old):
    for call, content in ((backend.save_weights, b"old"), (backend.load_weights, WHOLE)):
        old.write_bytes(content)
        assert " that maam built or loaded" in error_of(WeightsError, call, backend.foreign(), old)
        assert old.read_bytes() == content


def test_the_file_holds_format_version_spec_and_canonical_names(backend, node, tmp_path):
    path = tmp_path / "weights.safetensors"
    backend.save_weights(backend.build(node), path)
    with safetensors.safe_open(path, "numpy") as file:
        header = dict(file.metadata())
    assert header.keys() == {"format", "format_version", "spec", "checksum"}
    assert (header["format"], header["format_version"]) == ("maam", "1")
    assert spec.parse_json(header["spec"]) == node == backend.load(path).spec
    assert json.loads(header["spec"]) == node.to_document()
    shapes = {name: array.shape for name, array in load_file(path).items()}
    assert shapes == {p.name: p.shape for p in node.parameters()}


def test_any_safetensors_reader_reads_arrays_of_any_memory_layout(write):
    node = spec.Sequential(children={"fc": spec.Linear(in_features=3, out_features=2, bias=False)})
    plain = arbitrary(node)["fc.weight"]
    transposed, strided = np.ascontiguousarray(plain.T).T, np.repeat(plain, 2, axis=1)[:, ::2]
    for array in (plain, transposed, strided, np.asfortranarray(plain)):
        np.testing.assert_array_equal(load_file(write(node, {"fc.weight": array}))["fc.weight"], plain)


def _load_error(backend, path):
    """Return the message of the error, which must be the same for load and load_weights."""
    message = error_of(WeightsError, backend.load, path)
    assert error_of(WeightsError, backend.load_weights, backend.build(FC), path) == message
    return message


CUT_SHORT = "not a safetensors file, or truncated: "
EMPTY = edited(WHOLE, "x", value={"dtype": "F32", "shape": [0, 2**63], "data_offsets": [12, 12]})
GARBAGE = (b"", b"x", b"PK\x03\x04" * 100, b"\x00" * 100, b"\xff" * 100, WHOLE[:-1])
VERSION, INVALID = "format version {!r}, expected '1'; update maam to read it", "the header's spec is invalid: "
BROKEN = [(garbage, CUT_SHORT) for garbage in GARBAGE]
BROKEN += [
    (save(ARRAYS, HEADER | {"format_version": text}), VERSION.format(text[:20]))
    for text in ("2", "1.0", "", "nonsense of any length at all")
]
BROKEN += [(save(ARRAYS, HEADER | {"spec": text}), INVALID) for text in ("", "{", "[]", '{"kind": "nothing"}')]
BROKEN += [
    (
        save(ARRAYS | {"fc.bias": np.ones(1, dtype)}, HEADER),
        f"fc.bias has dtype {name}; expected one of F16, BF16, F32, F64",
    )
    for dtype, name in [("int64", "I64"), ("uint8", "U8"), ("bool", "BOOL")]
]
BROKEN += [(EMPTY, "x has a shape that NumPy does not support: [0, 9223372036854775808]")]


@pytest.mark.parametrize(("content", "message"), BROKEN)
def test_files_that_cannot_be_loaded(backend, old, content, message):
    old.write_bytes(content)
    assert _load_error(backend, old).startswith(f"{old}: {message}")


@pytest.mark.parametrize("header", [None, {}, {"format": "pt"}, {"spec": FC.to_json()}])
def test_files_without_a_spec_need_one(backend, old, header, values):
    old.write_bytes(save(ARRAYS, header))
    remedy = "pass spec=, or add it with: maam convert SRC DST --spec PRESET"
    assert error_of(WeightsError, backend.load, old) == f"{old}: contains no spec; {remedy}"
    assert "without the header of maam; convert it with" in error_of(WeightsError, read_weights, old)
    model = backend.build(FC)
    assert backend.load_weights(model, old) == ((), ())
    for found in (model, backend.load(old, spec=FC)):
        assert bits(values(found)) == bits(ARRAYS)
    assert "does not fit the model" in error_of(WeightsError, backend.load, old, spec="maam_digits")


def test_paths_that_cannot_be_loaded(backend, old, monkeypatch):
    folder = old.parent
    assert _load_error(backend, folder / "none.safetensors") == f"{folder}/none.safetensors: no such file"
    old.unlink()
    assert _load_error(backend, folder) == f"{folder}: cannot be read: Is a directory"
    for name in ("final", "best"):
        (folder / f"{name}.safetensors").touch()
    expected = "a directory; it holds best.safetensors, final.safetensors: pass one of these files"
    assert _load_error(backend, folder).endswith(expected)
    refuse = Mock(side_effect=PermissionError(13, "Permission denied"))
    monkeypatch.setattr("maam._io.open_regular", refuse)  # file modes do not apply to root
    assert _load_error(backend, old) == f"{old}: cannot be read: Permission denied"
