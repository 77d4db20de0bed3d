"""Weights files in and out of the referee; all that files have in common is tested under tests/weights."""

import ml_dtypes
import numpy as np
import pytest

from maam import spec
from maam.errors import WeightsError
from maam.reference import ReferenceModel, build, load, load_weights, save_weights

NODE = spec.maam(2, fusion="softmax")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_files_keep_the_dtypes_that_the_arrays_came_in(tmp_path, dtype):
    referee = ReferenceModel(
        NODE, {name: array.astype(dtype) for name, array in spec.draw(NODE.parameters(), 1).items()}
    )
    save_weights(referee, tmp_path / "a.safetensors")
    again = load(tmp_path / "a.safetensors")
    assert again.spec == NODE
    assert set(again.dtypes.values()) == {np.dtype(dtype)}
    assert {name: a.tobytes() for name, a in again.arrays.items()} == {
        name: a.tobytes() for name, a in referee.arrays.items()
    }


def test_load_rounds_where_a_dtype_is_given(tmp_path):
    save_weights(build(NODE, seed=1), tmp_path / "a.safetensors")
    narrow = load(tmp_path / "a.safetensors", np.float16)
    expected = spec.draw(NODE.parameters(), 1)["agents.0.conv1.weight"].astype(np.float16)
    assert narrow.arrays["agents.0.conv1.weight"].tolist() == expected.tolist()
    with pytest.raises(WeightsError, match="dtype: expected one of float16, bfloat16, float32, float64, got int32"):
        load(tmp_path / "a.safetensors", np.int32)


def test_load_weights_changes_a_referee_or_leaves_it(tmp_path):
    save_weights(build(NODE, seed=1), tmp_path / "a.safetensors")
    referee = build(NODE, seed=2)
    load_weights(referee, tmp_path / "a.safetensors")
    x = np.ones((1, 2, 4, 4))
    assert referee(x).tolist() == build(NODE, seed=1)(x).tolist()
    other = build(spec.maam(2, num_agents=2), seed=2)
    before = {name: array.copy() for name, array in other.arrays.items()}
    with pytest.raises(WeightsError, match=r"unexpected: agents\.2"):
        load_weights(other, tmp_path / "a.safetensors")
    assert all(np.array_equal(other.arrays[name], array) for name, array in before.items())
