"""Weights files: writing, the header, and errors for broken files."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from maam import spec
from maam.errors import WeightsError
from maam.spec import parse_json
from maam.weights import write_weights
from maam.weights.file import read_safetensors
from tests.weights import malformed

NODE = spec.Sequential(children={"fc": spec.Linear(in_features=2, out_features=1)})
ARRAYS = {"fc.weight": np.float32([[1, 2]]), "fc.bias": np.float32([3])}
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def old(tmp_path):
    """Return the path of an existing file."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"old")
    return path


def _fail(*args, **kwargs):
    raise FULL


def _write_half(self, data):
    with self.open("wb") as file:
        file.write(data[: len(data) // 2])
    raise FULL


FAILURES = {
    "while writing": (Path, "write_bytes", _write_half),
    "while flushing": (os, "fsync", _fail),
    "at the rename": (Path, "replace", _fail),
    "at the mode": (Path, "chmod", _fail),
    "at the temporary file": ("tempfile", "mkstemp", _fail),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_write_does_not_change_the_old_file(backend, old, monkeypatch, failure):
    target, name, replacement = FAILURES[failure]
    model = backend.build(NODE)
    with monkeypatch.context() as patch:
        patch.setattr(f"{target}.{name}", replacement) if isinstance(target, str) else patch.setattr(
            target, name, replacement
        )
        with pytest.raises(WeightsError) as caught:
            backend.save_weights(model, old)
    assert str(caught.value) == f"{old}: cannot be written: No space left on device"
    assert old.read_bytes() == b"old"
    assert os.listdir(old.parent) == [old.name]


@pytest.mark.parametrize("name", ["x.pth", "x.PT", "x.ckpt", "x.npz", "x.pth.tar", "x.onnx", "x.pt2", "x.json"])
def test_a_suffix_of_another_format(backend, tmp_path, name):
    with pytest.raises(WeightsError, match=r"is the suffix of another format; use .safetensors. .maam conv"):
        backend.save_weights(backend.build(NODE), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x", "x.weights", "x.v1"])
def test_a_suffix_of_no_format(backend, tmp_path, name):
    backend.save_weights(backend.build(NODE), tmp_path / name)
    assert (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["x" * 243 + ".safetensors", "\u00e4" * 121 + ".safetensors"])
def test_the_longest_names(backend, tmp_path, name):
    backend.save_weights(backend.build(NODE), tmp_path / name)
    assert os.listdir(tmp_path) == [name]


def test_errors_for_objects_that_are_not_paths_or_specs(backend, tmp_path):
    with pytest.raises(WeightsError, match="expected the path of a weights file, got an object of type NoneType"):
        backend.save_weights(backend.build(NODE), None)
    with pytest.raises(WeightsError, match="write_weights: expected a spec, got an object of type str"):
        write_weights(tmp_path / "x.safetensors", "maam_digits", {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.zeros(1, np.float32)}, "does not fit the model; unexpected: x"),
        ({"fc.bias": None}, "does not fit the model; missing: fc.bias"),
        ({"fc.bias": np.zeros(2, np.float32)}, r"wrong shape: fc.bias \(2,\) instead of \(1,\)"),
        ({"fc.bias": ARRAYS["fc.bias"] * np.nan}, "fc.bias"),
        ({"\udcff": np.zeros(1, np.float32)}, r"unexpected: '\\udcff'"),
    ],
)
def test_invalid_arrays_are_not_written(old, changes, message):
    arrays = {name: array for name, array in (ARRAYS | changes).items() if array is not None}
    with pytest.raises(WeightsError, match=f"{old}: not written.*{message}"):
        write_weights(old, NODE, arrays)
    assert old.read_bytes() == b"old"


def test_a_missing_folder(backend, tmp_path):
    path = tmp_path / "none" / "weights.safetensors"
    with pytest.raises(WeightsError) as caught:
        backend.save_weights(backend.build(NODE), path)
    assert str(caught.value) == f"{path}: cannot be written: No such file or directory"
    assert not path.parent.exists()


def test_a_folder_instead_of_a_file(backend, tmp_path):
    with pytest.raises(WeightsError, match=r"cannot be written: Is a directory$"):
        backend.save_weights(backend.build(NODE), tmp_path)


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o400, 0o666])
def test_the_mode_of_a_replaced_file_is_kept(old, mode):
    old.chmod(mode)
    write_weights(old, NODE, ARRAYS)
    assert old.stat().st_mode & 0o777 == mode
    assert old.read_bytes() != b"old"


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_new_file_has_the_usual_mode(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_weights(tmp_path / "new.safetensors", NODE, ARRAYS)
    finally:
        os.umask(before)
    assert (tmp_path / "new.safetensors").stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("dtype", ["int64", "bool", "complex64", "float128" if hasattr(np, "float128") else "int8"])
def test_arrays_of_other_dtypes_are_not_written(old, dtype):
    with pytest.raises(WeightsError) as caught:
        write_weights(old, NODE, ARRAYS | {"fc.bias": np.ones(1, dtype)})
    expected = f"{old}: fc.bias has dtype {dtype}; expected one of float16, bfloat16, float32, float64"
    assert str(caught.value) == expected
    assert old.read_bytes() == b"old"


def test_a_model_that_maam_did_not_build_is_not_saved(old):
    pytest.importorskip("torch")
    torch_backend = pytest.importorskip("maam.torch")
    with pytest.raises(WeightsError, match=r"^Linear has no \.spec; give a model or layer"):
        torch_backend.save_weights(pytest.importorskip("torch").nn.Linear(1, 1), old)
    assert old.read_bytes() == b"old"


def _header(path):
    with safetensors.safe_open(path, "numpy") as file:
        return dict(file.metadata())


def test_the_header_holds_format_version_and_spec(backend, node, tmp_path):
    backend.save_weights(backend.build(node), tmp_path / "weights.safetensors")
    header = _header(tmp_path / "weights.safetensors")
    assert header.keys() == {"format", "format_version", "spec"}
    assert (header["format"], header["format_version"]) == ("maam", "1")
    assert parse_json(header["spec"]) == node
    assert json.loads(header["spec"]) == node.to_document()


def test_the_loaded_model_carries_the_spec(backend, node, tmp_path):
    backend.save_weights(backend.build(node), tmp_path / "weights.safetensors")
    assert backend.load(tmp_path / "weights.safetensors").spec == node


def test_every_backend_writes_the_same_names_in_the_canonical_form(backend, node, tmp_path):
    backend.save_weights(backend.build(node), tmp_path / "weights.safetensors")
    with safetensors.safe_open(tmp_path / "weights.safetensors", "numpy") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert shapes == {p.name: p.shape for p in node.parameters()}


def test_any_safetensors_reader_reads_the_arrays(write, arbitrary):
    node = spec.maam(4)
    arrays = arbitrary(node, "float32")
    with safetensors.safe_open(write(node, arrays), "numpy") as file:
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.get_tensor(name), array)


@pytest.mark.parametrize("layout", ["transposed", "strided", "fortran"])
def test_arrays_of_any_memory_layout_are_written_by_value(write, layout):
    node = spec.Sequential(children={"fc": spec.Linear(in_features=3, out_features=2, bias=False)})
    plain = np.arange(6, dtype=np.float32).reshape(2, 3)
    laid_out = {
        "transposed": np.ascontiguousarray(plain.T).T,
        "strided": np.repeat(plain, 2, axis=1)[:, ::2],
        "fortran": np.asfortranarray(plain),
    }[layout]
    with safetensors.safe_open(write(node, {"fc.weight": laid_out}), "numpy") as file:
        np.testing.assert_array_equal(file.get_tensor("fc.weight"), plain)


HEADER = {"format": "maam", "format_version": "1", "spec": NODE.to_json()}


def _refusal(backend, path):
    """Return the message of the error, which must be the same for load and load_weights."""
    messages = set()
    for load in (backend.load, lambda path: backend.load_weights(backend.build(NODE), path)):
        with pytest.raises(WeightsError) as caught:
            load(path)
        messages.add(str(caught.value))
    assert len(messages) == 1
    return messages.pop()


def _save(path, arrays=None, header=None):
    safetensors.numpy.save_file(ARRAYS if arrays is None else arrays, path, header)
    return path


def test_a_missing_file(backend, tmp_path):
    assert _refusal(backend, tmp_path / "none.safetensors") == f"{tmp_path}/none.safetensors: no such file"


def test_a_folder(backend, tmp_path):
    assert _refusal(backend, tmp_path) == f"{tmp_path}: cannot be read: Is a directory"
    for name in ("final", "best"):
        (tmp_path / f"{name}.safetensors").touch()
    assert _refusal(backend, tmp_path).endswith(
        "a directory; it holds best.safetensors, final.safetensors: pass one of these files"
    )


def test_a_file_that_cannot_be_read(backend, write, monkeypatch):
    path = write(NODE, ARRAYS)  # file modes do not apply to root

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    assert _refusal(backend, path) == f"{path}: cannot be read: Permission denied"


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04" * 100, b"\x00" * 100, b"\xff" * 100], ids=repr)
def test_garbage(backend, tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    assert _refusal(backend, path).startswith(f"{path}: not a safetensors file, or cut short: ")


def test_a_file_cut_short(backend, write):
    path = write(NODE, ARRAYS)
    path.write_bytes(path.read_bytes()[:-1])
    assert _refusal(backend, path).startswith(f"{path}: not a safetensors file, or cut short: ")


@pytest.mark.parametrize("header", [None, {}, {"format": "pt"}, {"spec": NODE.to_json()}], ids=str)
def test_a_foreign_safetensors_file(backend, tmp_path, header):
    path = _save(tmp_path / "foreign.safetensors", header=header)
    assert _refusal(backend, path) == (
        f"{path}: a safetensors file without the header of maam; convert it with: maam convert SRC DST --spec PRESET"
    )


@pytest.mark.parametrize("found", ["2", "1.0", "", "nonsense of any length at all"])
def test_a_later_format_version(backend, tmp_path, found):
    path = _save(tmp_path / "later.safetensors", header=HEADER | {"format_version": found})
    expected = f"{path}: format version {found[:20]!r}, expected '1'; update maam to read it"
    assert _refusal(backend, path) == expected


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"kind": "nothing"})])
def test_an_invalid_spec(backend, tmp_path, text):
    path = _save(tmp_path / "weights.safetensors", header=HEADER | {"spec": text})
    assert _refusal(backend, path).startswith(f"{path}: the header's spec is invalid: ")


@pytest.mark.parametrize(("dtype", "name"), [("int64", "I64"), ("uint8", "U8"), ("bool", "BOOL")])
def test_arrays_that_are_not_floating_point(backend, tmp_path, dtype, name):
    path = _save(tmp_path / "weights.safetensors", ARRAYS | {"fc.bias": np.ones(1, dtype)}, HEADER)
    assert _refusal(backend, path) == f"{path}: fc.bias has dtype {name}; expected one of F16, BF16, F32, F64"


def test_shapes_that_numpy_does_not_support(backend, tmp_path):
    path = _save(tmp_path / "weights.safetensors", header=HEADER)
    header, data = malformed.split(path.read_bytes())
    header["x"] = {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [len(data)] * 2}
    path.write_bytes(malformed.join(header, data))
    assert _refusal(backend, path) == f"{path}: x has a shape that NumPy does not support: [0, 9223372036854775808]"


def test_a_foreign_file_can_be_read_without_its_counters(tmp_path):
    arrays = ARRAYS | {"bn.num_batches_tracked": np.array(3)}
    found, read = read_safetensors(_save(tmp_path / "foreign.safetensors", arrays))
    assert found is None
    assert read.keys() == ARRAYS.keys()
