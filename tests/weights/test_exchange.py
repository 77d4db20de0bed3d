"""Exchange of weights between backends, bit for bit, and rounding to other dtypes."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from maam import spec
from maam.errors import WeightsError
from maam.weights import write_weights
from maam.weights.exchange import cast
from tests.errors import error_of
from tests.strategies import batch_norms, convs, linears, rnns
from tests.weights.helpers import DTYPES, arbitrary, bits, mixed, same

ABOVE_A_TIE = 1 + 2.0**-8 + 2.0**-30
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def test_every_backend_writes_the_file_that_it_reads(backend, node, dtype, write, tmp_path):
    """The bytes are those of `write_weights`, so weights pass between any two backends without a change."""
    arrays = arbitrary(node, dtype)
    write_weights(tmp_path / "expected.safetensors", node, arrays)
    assert same(tmp_path / "expected.safetensors", arrays)
    backend.save_weights(backend.load(write(node, arrays), backend.dtype(dtype)), tmp_path / "found.safetensors")
    assert (tmp_path / "found.safetensors").read_bytes() == (tmp_path / "expected.safetensors").read_bytes()


def test_a_single_layer_is_loaded_and_saved_as_a_model_is(backend, write, tmp_path):
    node = spec.maam(4, fusion="dynamic", scales=(1, 2, 1))
    arrays, layer = arbitrary(node), backend.layer(fusion="dynamic", scales=(1, 2, 1))
    assert backend.load_weights(layer, write(node, arrays)) == ((), ())
    backend.save_weights(layer, tmp_path / "layer.safetensors")
    assert same(tmp_path / "layer.safetensors", arrays, node)


def test_mixed_dtypes(backend, write, values):
    """Half precision becomes float32, so that images in float32 fit; the reference, which takes any, keeps it."""
    arrays = mixed(spec.maam(4))
    assert {str(array.dtype) for array in arrays.values()} == set(DTYPES)
    path, expected = write(spec.maam(4), arrays), arrays
    if backend.name != "reference":
        expected = {name: a.astype(np.float32) if a.dtype.itemsize == 2 else a for name, a in arrays.items()}
    assert bits(values(backend.load(path))) == bits(expected)


@pytest.mark.parametrize("wanted", DTYPES)
def test_values_are_rounded_once_to_the_dtype_of_the_model(backend, wanted, dtype, write, values):
    arrays = _ordinary(dtype)
    path = write(FC, arrays)
    expected = {name: array.astype(DTYPES[wanted]) for name, array in arrays.items()}
    if (dtype, wanted) == ("float64", "bfloat16"):  # which ml_dtypes rounds twice
        expected["fc.bias"][0] = 1 + 2.0**-7
    model = backend.build(FC, wanted)
    backend.load_weights(model, path)
    for found in (model, backend.load(path, dtype=backend.dtype(wanted))):
        assert bits(values(found)) == bits(expected)


def test_float64_is_rounded_once():
    """ml_dtypes casts float64 to bfloat16 through float32, which rounds values just above a tie to the tie."""

    def rounded(values):
        return cast({"x": np.array(values)}, {"x": BFLOAT16}, source="x")["x"].astype(np.float64)

    tie, least = 1 + 2.0**-8, 2.0**-133  # the least bfloat16 above 0
    values = [tie + 2.0**-40, tie - 2.0**-40, tie, -tie - 2.0**-40, least / 2, least / 2 + 2.0**-180, 3e38, 0.0, -0.0]
    found = rounded(values)
    assert found.tolist() == [1 + 2.0**-7, 1.0, 1.0, -1 - 2.0**-7, 0.0, least, found[6], 0.0, -0.0]
    assert found[6] == np.float64(np.array(3e38).astype(BFLOAT16))
    random = np.random.default_rng(0).standard_normal(10_000)
    assert (np.abs(rounded(random) - random) <= np.abs(random) * 2.0**-8).all()
    with pytest.raises(WeightsError, match="too large for bfloat16"):
        rounded([1e39])


def test_values_and_dtypes_that_are_refused(backend, write, values):
    arrays = _ordinary("float32")
    arrays["fc.weight"][0, 1] = 70000
    arrays["fc.bias"][1] = -70000
    path = write(FC, arrays)
    message = f"{path}: too large for float16: fc.weight, fc.bias; use a wider dtype"
    assert error_of(WeightsError, backend.load, path, dtype=backend.dtype("float16")) == message
    model = backend.build(FC, "float16")
    before = bits(values(model))
    assert error_of(WeightsError, backend.load_weights, model, path) == message
    assert bits(values(model)) == before
    for wrong in ("int32", "complex64"):
        with pytest.raises(WeightsError, match=r"^dtype: expected one of .*loat64, got "):
            backend.load(path, dtype=backend.dtype(wrong))


def test_models_loaded_twice_are_independent(backend, write, values):
    arrays = _ordinary("float32")
    path = write(FC, arrays)
    first, second = backend.load(path), backend.load(path)
    backend.load_weights(first, write(FC, {name: array + 1 for name, array in arrays.items()}, "other.safetensors"))
    assert bits(values(second)) == bits(arrays)
    assert same(path, arrays)


FC = spec.Sequential(children={"fc": spec.Linear(in_features=3, out_features=2)})


def _ordinary(dtype):
    """Return arrays of FC, with a value that depends on rounding once or through float32."""
    weight = np.array([[1 + 2.0**-11 + 2.0**-40, -1 / 3, 1e-6], [1e-9, -0.0, 1234.5]])
    return {
        "fc.weight": weight.astype(DTYPES[dtype]),
        "fc.bias": np.array([ABOVE_A_TIE, 3.0]).astype(DTYPES[dtype]),
    }


@st.composite
def _layers(draw):
    """Return a layer of random size with random finite arrays in random dtypes."""
    shape = (draw(st.integers(1, 2)), 4, 4)
    node = draw(st.one_of(linears(shape), convs(shape), rnns(shape), batch_norms(shape)))
    finite = {"allow_nan": False, "allow_infinity": False}
    dtype = arrays_of.floating_dtypes(endianness="=", sizes=(16, 32, 64))
    arrays = {p.name: draw(arrays_of.arrays(draw(dtype), p.shape, elements=finite)) for p in node.parameters()}
    return node, {name: np.abs(array) if name.endswith("running_var") else array for name, array in arrays.items()}


@given(_layers())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_read_returns_the_written_arrays(tmp_path, layer):
    node, arrays = layer
    write_weights(tmp_path / "weights.safetensors", node, arrays)
    assert same(tmp_path / "weights.safetensors", arrays, node)
