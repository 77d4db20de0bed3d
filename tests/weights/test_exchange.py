import itertools

import ml_dtypes
import numpy as np
import pytest

from maam import spec
from maam.errors import WeightsError
from maam.weights import read_weights
from maam.weights.exchange import cast

ABOVE_A_TIE = 1 + 2.0**-8 + 2.0**-30
PAIRS = list(itertools.product(("reference", "torch", "mindspore"), repeat=2))


@pytest.mark.parametrize("pair", PAIRS, ids=" to ".join)
def test_every_bit_passes_from_room_to_room(rooms, pair, node, dtype, arbitrary, write, same, tmp_path):
    first, second = (rooms[name] for name in pair)
    arrays = arbitrary(node, dtype)
    first.save_weights(first.load(write(node, arrays)), tmp_path / "first.safetensors")
    assert same(tmp_path / "first.safetensors", arrays)
    second.save_weights(second.load(tmp_path / "first.safetensors"), tmp_path / "second.safetensors")
    assert (tmp_path / "second.safetensors").read_bytes() == (tmp_path / "first.safetensors").read_bytes()


@pytest.mark.parametrize("pair", PAIRS, ids=" to ".join)
def test_a_single_layer_is_exchanged_as_a_model_is(rooms, pair, same, tmp_path):
    first, second = (rooms[name] for name in pair)
    first.save_weights(first.layer(fusion="dynamic", scales=(1, 2, 1)), tmp_path / "layer.safetensors")
    saved, arrays = read_weights(tmp_path / "layer.safetensors")
    assert saved == spec.maam(4, fusion="dynamic", scales=(1, 2, 1))
    layer = second.layer(fusion="dynamic", scales=(1, 2, 1))
    assert second.load_weights(layer, tmp_path / "layer.safetensors") == ((), ())
    second.save_weights(layer, tmp_path / "again.safetensors")
    assert same(tmp_path / "again.safetensors", arrays)


def test_dtypes_may_be_mixed(room, arbitrary, dtypes, write, same, tmp_path):
    node = spec.maam(4)
    whole = {name: arbitrary(node, name) for name in dtypes}
    names = itertools.cycle(dtypes)
    arrays = {p.name: whole[next(names)][p.name] for p in node.parameters()}
    room.save_weights(room.load(write(node, arrays)), tmp_path / "again.safetensors")
    assert same(tmp_path / "again.safetensors", arrays)


@pytest.mark.parametrize("wanted", ["float16", "bfloat16", "float32", "float64"])
def test_load_rounds_as_numpy_does(room, wanted, dtype, dtypes, write, same, tmp_path):
    node, arrays = _ordinary(dtypes[dtype])
    model = room.load(write(node, arrays), dtype=room.dtype(wanted))
    room.save_weights(model, tmp_path / "again.safetensors")
    assert same(tmp_path / "again.safetensors", {name: _rounded(a, dtypes[wanted]) for name, a in arrays.items()})


def test_float64_is_rounded_once():
    """ml_dtypes casts float64 to bfloat16 by way of float32, which takes values just above a tie to the tie."""
    tie, least = 1 + 2.0**-8, 2.0**-133  # the least bfloat16 above 0
    values = [tie + 2.0**-40, tie - 2.0**-40, tie, -tie - 2.0**-40, least / 2, least / 2 + 2.0**-180, 3e38, 0.0, -0.0]
    found = cast({"x": np.array(values)}, {"x": np.dtype(ml_dtypes.bfloat16)}, source="x")["x"].astype(np.float64)
    assert found.tolist() == [1 + 2.0**-7, 1.0, 1.0, -1 - 2.0**-7, 0.0, least, found[6], 0.0, -0.0]
    assert found[6] == np.float64(np.array(3e38).astype(ml_dtypes.bfloat16))
    random = np.random.default_rng(0).standard_normal(10_000)
    one = cast({"x": random}, {"x": np.dtype(ml_dtypes.bfloat16)}, source="x")["x"].astype(np.float64)
    assert (np.abs(one - random) <= np.abs(random) * 2.0**-8).all()
    with pytest.raises(WeightsError, match="too large for bfloat16"):
        cast({"x": np.array([1e39])}, {"x": np.dtype(ml_dtypes.bfloat16)}, source="x")


@pytest.mark.parametrize("own", ["float16", "bfloat16", "float32", "float64"])
def test_load_weights_rounds_to_the_model_dtype(room, own, dtype, dtypes, write, same, tmp_path):
    node, arrays = _ordinary(dtypes[dtype])
    model = room.build(node, own)
    room.load_weights(model, write(node, arrays))
    room.save_weights(model, tmp_path / "again.safetensors")
    assert same(tmp_path / "again.safetensors", {name: _rounded(a, dtypes[own]) for name, a in arrays.items()})


def test_a_value_too_large_for_the_dtype_is_refused(room, write, same, tmp_path):
    node, arrays = _ordinary(np.dtype(np.float32))
    arrays["fc.weight"][0, 1] = 70000
    arrays["fc.bias"][1] = -70000
    path = write(node, arrays)
    message = f"{path}: too large for float16: fc.weight, fc.bias; take a wider dtype"
    with pytest.raises(WeightsError) as caught:
        room.load(path, dtype=room.dtype("float16"))
    assert str(caught.value) == message
    model = room.build(node, "float16")
    room.save_weights(model, tmp_path / "before.safetensors")
    with pytest.raises(WeightsError) as caught:
        room.load_weights(model, path)
    assert str(caught.value) == message
    room.save_weights(model, tmp_path / "after.safetensors")
    assert same(tmp_path / "after.safetensors", read_weights(tmp_path / "before.safetensors")[1])


@pytest.mark.parametrize("wrong", ["int32", "complex64"])
def test_only_floating_point_dtypes_can_be_asked_for(room, wrong, write):
    with pytest.raises(WeightsError, match=r"^dtype: expected one of .*loat64, got "):
        room.load(write(*_ordinary(np.dtype(np.float32))), dtype=room.dtype(wrong))


def test_loading_twice_gives_models_that_share_nothing(room, write, same, tmp_path):
    node, arrays = _ordinary(np.dtype(np.float32))
    path = write(node, arrays)
    first, second = room.load(path), room.load(path)
    other = write(node, {name: array + 1 for name, array in arrays.items()}, "other.safetensors")
    room.load_weights(first, other)
    room.save_weights(second, tmp_path / "second.safetensors")
    assert same(tmp_path / "second.safetensors", arrays)
    assert same(path, arrays)


def _rounded(array, dtype):
    """In another dtype, rounded once, which ml_dtypes does not do to a value just above a tie."""
    found = array.astype(dtype)
    if dtype == ml_dtypes.bfloat16:
        found[array.astype(np.float64) == ABOVE_A_TIE] = 1 + 2.0**-7
    return found


def _ordinary(dtype):
    """A linear layer with normal numbers, and one that rounds otherwise by way of float32 than at once."""
    node = spec.Sequential(children={"fc": spec.Linear(in_features=3, out_features=2)})
    weight = np.array([[1 + 2.0**-11 + 2.0**-40, -1 / 3, 1e-6], [1e-9, -0.0, 1234.5]])
    return node, {"fc.weight": weight.astype(dtype), "fc.bias": np.array([ABOVE_A_TIE, 3.0]).astype(dtype)}
