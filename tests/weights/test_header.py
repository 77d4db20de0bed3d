import json

import numpy as np
import pytest
import safetensors

from maam import spec
from maam.spec import parse_json


def _header(path):
    with safetensors.safe_open(path, "numpy") as file:
        return dict(file.metadata())


def test_the_header_holds_format_version_and_spec(room, node, tmp_path):
    room.save_weights(room.build(node), tmp_path / "weights.safetensors")
    header = _header(tmp_path / "weights.safetensors")
    assert header.keys() == {"format", "format_version", "spec"}
    assert (header["format"], header["format_version"]) == ("maam", "1")
    assert parse_json(header["spec"]) == node
    assert json.loads(header["spec"]) == node.to_document()


def test_the_loaded_model_carries_the_spec(room, node, tmp_path):
    room.save_weights(room.build(node), tmp_path / "weights.safetensors")
    assert room.load(tmp_path / "weights.safetensors").spec == node


def test_every_room_writes_the_same_names_in_the_canonical_form(room, node, tmp_path):
    room.save_weights(room.build(node), tmp_path / "weights.safetensors")
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
