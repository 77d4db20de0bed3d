"""Exchange of weights between backends, bit for bit, and rounding to other dtypes."""

import itertools
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from maam import spec
from maam.errors import WeightsError
from maam.weights import read_weights, write_weights
from maam.weights.exchange import cast

ABOVE_A_TIE = 1 + 2.0**-8 + 2.0**-30
PAIRS = list(itertools.product(("reference", "torch", "mindspore"), repeat=2))


def test_every_backend_writes_the_file_that_it_reads(backend, node, dtype, arbitrary, write, same, tmp_path):
    """The bytes are those of `write_weights`, so weights pass between any two backends without a change."""
    arrays = arbitrary(node, dtype)
    write_weights(tmp_path / "expected.safetensors", node, arrays)
    assert same(tmp_path / "expected.safetensors", arrays)
    backend.save_weights(backend.load(write(node, arrays)), tmp_path / "found.safetensors")
    assert (tmp_path / "found.safetensors").read_bytes() == (tmp_path / "expected.safetensors").read_bytes()


@pytest.mark.parametrize("pair", PAIRS, ids=" to ".join)
def test_a_single_layer_is_exchanged_as_a_model_is(backends, pair, same, tmp_path):
    first, second = (backends[name] for name in pair)
    first.save_weights(first.layer(fusion="dynamic", scales=(1, 2, 1)), tmp_path / "layer.safetensors")
    saved, arrays = read_weights(tmp_path / "layer.safetensors")
    assert saved == spec.maam(4, fusion="dynamic", scales=(1, 2, 1))
    layer = second.layer(fusion="dynamic", scales=(1, 2, 1))
    assert second.load_weights(layer, tmp_path / "layer.safetensors") == ((), ())
    second.save_weights(layer, tmp_path / "again.safetensors")
    assert same(tmp_path / "again.safetensors", arrays)


def test_mixed_dtypes(backend, arbitrary, dtypes, write, same, tmp_path):
    node = spec.maam(4)
    whole = {name: arbitrary(node, name) for name in dtypes}
    names = itertools.cycle(dtypes)
    arrays = {p.name: whole[next(names)][p.name] for p in node.parameters()}
    backend.save_weights(backend.load(write(node, arrays)), tmp_path / "again.safetensors")
    assert same(tmp_path / "again.safetensors", arrays)


@pytest.mark.parametrize("wanted", ["float16", "bfloat16", "float32", "float64"])
def test_load_rounds_as_numpy_does(backend, wanted, dtype, dtypes, write, same, tmp_path):
    node, arrays = _ordinary(dtypes[dtype])
    model = backend.load(write(node, arrays), dtype=backend.dtype(wanted))
    backend.save_weights(model, tmp_path / "again.safetensors")
    assert same(tmp_path / "again.safetensors", {name: _rounded(a, dtypes[wanted]) for name, a in arrays.items()})


def test_float64_is_rounded_once():
    """ml_dtypes casts float64 to bfloat16 through float32, which rounds values just above a tie to the tie."""
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
def test_load_weights_rounds_to_the_model_dtype(backend, own, dtype, dtypes, write, same, tmp_path):
    node, arrays = _ordinary(dtypes[dtype])
    model = backend.build(node, own)
    backend.load_weights(model, write(node, arrays))
    backend.save_weights(model, tmp_path / "again.safetensors")
    assert same(tmp_path / "again.safetensors", {name: _rounded(a, dtypes[own]) for name, a in arrays.items()})


def test_a_value_too_large_for_the_dtype_is_refused(backend, write, same, tmp_path):
    node, arrays = _ordinary(np.dtype(np.float32))
    arrays["fc.weight"][0, 1] = 70000
    arrays["fc.bias"][1] = -70000
    path = write(node, arrays)
    message = f"{path}: too large for float16: fc.weight, fc.bias; take a wider dtype"
    with pytest.raises(WeightsError) as caught:
        backend.load(path, dtype=backend.dtype("float16"))
    assert str(caught.value) == message
    model = backend.build(node, "float16")
    backend.save_weights(model, tmp_path / "before.safetensors")
    with pytest.raises(WeightsError) as caught:
        backend.load_weights(model, path)
    assert str(caught.value) == message
    backend.save_weights(model, tmp_path / "after.safetensors")
    assert same(tmp_path / "after.safetensors", read_weights(tmp_path / "before.safetensors")[1])


@pytest.mark.parametrize("wrong", ["int32", "complex64"])
def test_only_floating_point_dtypes_are_accepted(backend, wrong, write):
    with pytest.raises(WeightsError, match=r"^dtype: expected one of .*loat64, got "):
        backend.load(write(*_ordinary(np.dtype(np.float32))), dtype=backend.dtype(wrong))


def test_models_loaded_twice_are_independent(backend, write, same, tmp_path):
    node, arrays = _ordinary(np.dtype(np.float32))
    path = write(node, arrays)
    first, second = backend.load(path), backend.load(path)
    other = write(node, {name: array + 1 for name, array in arrays.items()}, "other.safetensors")
    backend.load_weights(first, other)
    backend.save_weights(second, tmp_path / "second.safetensors")
    assert same(tmp_path / "second.safetensors", arrays)
    assert same(path, arrays)


def _rounded(array, dtype):
    """Return the array in another dtype, rounded once; ml_dtypes rounds values just above a tie twice."""
    found = array.astype(dtype)
    if dtype == ml_dtypes.bfloat16:
        found[array.astype(np.float64) == ABOVE_A_TIE] = 1 + 2.0**-7
    return found


def _ordinary(dtype):
    """Return arrays of a linear layer, with a value that depends on rounding once or through float32."""
    node = spec.Sequential(children={"fc": spec.Linear(in_features=3, out_features=2)})
    weight = np.array([[1 + 2.0**-11 + 2.0**-40, -1 / 3, 1e-6], [1e-9, -0.0, 1234.5]])
    return node, {"fc.weight": weight.astype(dtype), "fc.bias": np.array([ABOVE_A_TIE, 3.0]).astype(dtype)}


@st.composite
def _layers(draw):
    """Return a layer of random size with random finite arrays in random dtypes."""
    sizes = st.integers(1, 4)
    node = draw(
        st.one_of(
            st.builds(spec.Linear, in_features=sizes, out_features=sizes, bias=st.booleans()),
            st.builds(spec.Conv2d, in_channels=sizes, out_channels=sizes, kernel_size=sizes, bias=st.booleans()),
            st.builds(spec.RNN, input_size=sizes, hidden_size=sizes),
            st.builds(spec.BatchNorm2d, num_features=sizes),
        )
    )
    finite = {"allow_nan": False, "allow_infinity": False}
    dtype = arrays_of.floating_dtypes(endianness="=", sizes=(16, 32, 64))
    arrays = {p.name: draw(arrays_of.arrays(draw(dtype), p.shape, elements=finite)) for p in node.parameters()}
    return node, {name: np.abs(array) if name.endswith("running_var") else array for name, array in arrays.items()}


@given(_layers())
@settings(max_examples=60, deadline=None)
def test_read_returns_the_written_arrays(layer):
    node, arrays = layer
    with tempfile.TemporaryDirectory() as folder:
        write_weights(Path(folder) / "weights.safetensors", node, arrays)
        found, read = read_weights(Path(folder) / "weights.safetensors")
    assert found == node
    assert {name: (a.dtype, a.shape, a.tobytes()) for name, a in read.items()} == {
        name: (a.dtype, np.shape(a), a.tobytes()) for name, a in arrays.items()
    }
