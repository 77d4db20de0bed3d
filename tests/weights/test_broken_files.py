import json

import numpy as np
import pytest
import safetensors.numpy

from maam import spec
from maam.errors import WeightsError
from maam.weights.file import read_safetensors

NODE = spec.Sequential(children={"fc": spec.Linear(in_features=2, out_features=1)})
ARRAYS = {"fc.weight": np.float32([[1, 2]]), "fc.bias": np.float32([3])}
HEADER = {"format": "maam", "format_version": "1", "spec": NODE.to_json()}


def _refusal(room, path):
    """The message with which a room refuses a file, the same for both ways to load it."""
    messages = set()
    for load in (room.load, lambda path: room.load_weights(room.build(NODE), path)):
        with pytest.raises(WeightsError) as caught:
            load(path)
        messages.add(str(caught.value))
    assert len(messages) == 1
    return messages.pop()


def _save(path, arrays=None, header=None):
    safetensors.numpy.save_file(ARRAYS if arrays is None else arrays, path, header)
    return path


def test_a_missing_file(room, tmp_path):
    assert _refusal(room, tmp_path / "none.safetensors") == f"{tmp_path}/none.safetensors: no such file"


def test_a_folder(room, tmp_path):
    assert _refusal(room, tmp_path) == f"{tmp_path}: cannot be read: Is a directory"
    for name in ("final", "best"):
        (tmp_path / f"{name}.safetensors").touch()
    assert _refusal(room, tmp_path).endswith(
        "a directory; it holds best.safetensors, final.safetensors: pass one of these files"
    )


def test_a_file_that_cannot_be_read(room, write, monkeypatch):
    path = write(NODE, ARRAYS)  # the tests may run as root, whom no mode keeps out

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    assert _refusal(room, path) == f"{path}: cannot be read: Permission denied"


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04" * 100, b"\x00" * 100, b"\xff" * 100], ids=repr)
def test_garbage(room, tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    assert _refusal(room, path).startswith(f"{path}: not a safetensors file, or cut short: ")


def test_a_file_cut_short(room, write):
    path = write(NODE, ARRAYS)
    path.write_bytes(path.read_bytes()[:-1])
    assert _refusal(room, path).startswith(f"{path}: not a safetensors file, or cut short: ")


@pytest.mark.parametrize("header", [None, {}, {"format": "pt"}, {"spec": NODE.to_json()}], ids=str)
def test_a_foreign_safetensors_file(room, tmp_path, header):
    path = _save(tmp_path / "foreign.safetensors", header=header)
    assert _refusal(room, path) == (
        f"{path}: a safetensors file without the header of maam; convert it with: maam convert SRC DST --spec PRESET"
    )


@pytest.mark.parametrize("found", ["2", "1.0", "", "nonsense of any length at all"])
def test_a_later_format_version(room, tmp_path, found):
    path = _save(tmp_path / "later.safetensors", header=HEADER | {"format_version": found})
    expected = f"{path}: format version {found[:20]!r}, expected '1'; update maam to read it"
    assert _refusal(room, path) == expected


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"kind": "nothing"})])
def test_an_invalid_spec(room, tmp_path, text):
    path = _save(tmp_path / "weights.safetensors", header=HEADER | {"spec": text})
    assert _refusal(room, path).startswith(f"{path}: the header's spec is invalid: ")


@pytest.mark.parametrize(("dtype", "name"), [("int64", "I64"), ("uint8", "U8"), ("bool", "BOOL")])
def test_arrays_that_are_not_floating_point(room, tmp_path, dtype, name):
    path = _save(tmp_path / "weights.safetensors", ARRAYS | {"fc.bias": np.ones(1, dtype)}, HEADER)
    assert _refusal(room, path) == f"{path}: fc.bias has dtype {name}; expected one of F16, BF16, F32, F64"


def test_shapes_that_no_array_has(room, tmp_path, malformed):
    path = _save(tmp_path / "weights.safetensors", header=HEADER)
    header, data = malformed.split(path.read_bytes())
    header["x"] = {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [len(data)] * 2}
    path.write_bytes(malformed.join(header, data))
    assert _refusal(room, path) == f"{path}: x has a shape that NumPy does not support: [0, 9223372036854775808]"


def test_a_foreign_file_can_be_read_without_its_counters(tmp_path):
    arrays = ARRAYS | {"bn.num_batches_tracked": np.array(3)}
    found, read = read_safetensors(_save(tmp_path / "foreign.safetensors", arrays))
    assert found is None
    assert read.keys() == ARRAYS.keys()
