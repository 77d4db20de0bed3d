import errno
import os
from pathlib import Path

import numpy as np
import pytest

from maam import spec
from maam.errors import WeightsError
from maam.weights import write_weights

NODE = spec.Sequential(children={"fc": spec.Linear(in_features=2, out_features=1)})
ARRAYS = {"fc.weight": np.float32([[1, 2]]), "fc.bias": np.float32([3])}
FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def old(tmp_path):
    """A file that stands where the new one is to go."""
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
def test_a_failed_write_leaves_the_old_file_alone(room, old, monkeypatch, failure):
    target, name, replacement = FAILURES[failure]
    model = room.build(NODE)
    with monkeypatch.context() as patch:
        patch.setattr(f"{target}.{name}", replacement) if isinstance(target, str) else patch.setattr(
            target, name, replacement
        )
        with pytest.raises(WeightsError) as caught:
            room.save_weights(model, old)
    assert str(caught.value) == f"{old}: cannot be written: No space left on device"
    assert old.read_bytes() == b"old"
    assert os.listdir(old.parent) == [old.name]


@pytest.mark.parametrize("name", ["x.pth", "x.PT", "x.ckpt", "x.npz", "x.pth.tar", "x.onnx", "x.pt2", "x.json"])
def test_a_suffix_of_another_format(room, tmp_path, name):
    with pytest.raises(
        WeightsError, match=r"is the suffix of another format; use .safetensors. .maam conv"
    ):
        room.save_weights(room.build(NODE), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x", "x.weights", "x.v1"])
def test_a_suffix_of_no_format(room, tmp_path, name):
    room.save_weights(room.build(NODE), tmp_path / name)
    assert (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["x" * 243 + ".safetensors", "\u00e4" * 121 + ".safetensors"])
def test_the_longest_names(room, tmp_path, name):
    room.save_weights(room.build(NODE), tmp_path / name)
    assert os.listdir(tmp_path) == [name]


def test_what_is_no_path_and_no_spec(room, tmp_path):
    with pytest.raises(WeightsError, match="expected the path of a weights file, got an object of type NoneType"):
        room.save_weights(room.build(NODE), None)
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
def test_what_could_not_be_loaded_is_not_written(old, changes, message):
    arrays = {name: array for name, array in (ARRAYS | changes).items() if array is not None}
    with pytest.raises(WeightsError, match=f"{old}: not written.*{message}"):
        write_weights(old, NODE, arrays)
    assert old.read_bytes() == b"old"


def test_a_missing_folder(room, tmp_path):
    path = tmp_path / "none" / "weights.safetensors"
    with pytest.raises(WeightsError) as caught:
        room.save_weights(room.build(NODE), path)
    assert str(caught.value) == f"{path}: cannot be written: No such file or directory"
    assert not path.parent.exists()


def test_a_folder_in_the_place_of_the_file(room, tmp_path):
    with pytest.raises(WeightsError, match=r"cannot be written: Is a directory$"):
        room.save_weights(room.build(NODE), tmp_path)


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
    torch_room = pytest.importorskip("maam.torch")
    with pytest.raises(WeightsError, match=r"^Linear has no \.spec; give a model or layer"):
        torch_room.save_weights(pytest.importorskip("torch").nn.Linear(1, 1), old)
    assert old.read_bytes() == b"old"
