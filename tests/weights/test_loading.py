"""Loading and saving: every bit, names, shapes, values, dtypes, and specs that compute something else."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from maam import spec
from maam.errors import WeightsError
from maam.weights import match, write_weights
from maam.weights.exchange import cast
from maam.weights.match import check_same_function, strip_prefix
from tests.errors import error_of
from tests.strategies import batch_norms, convs, linears, rnns
from tests.weights.helpers import DTYPES, arbitrary, bits, mixed, same

RELU, SILU = (spec.Activation(function=name) for name in ("relu", "silu"))
CONV = spec.Conv2d(in_channels=1, out_channels=2, kernel_size=1)
NODE = spec.Sequential(children={"conv": CONV, "bn": spec.BatchNorm2d(num_features=2), "act": RELU})
TWO = spec.Sequential(children={"fc": spec.Linear(in_features=3, out_features=2)})
FC = np.float32([1])
ABOVE_A_TIE = 1 + 2.0**-8 + 2.0**-30
BFLOAT16 = DTYPES["bfloat16"]


@pytest.fixture
def arrays():
    return arbitrary(NODE)


@pytest.fixture
def model(backend):
    return backend.build(NODE)


def test_strict_loading_lists_every_name_that_does_not_fit(backend, model, arrays, write, values):
    del arrays["conv.bias"], arrays["bn.running_mean"]
    arrays |= {"fc.weight": FC, "bn.extra": FC}
    arrays |= {"bn.weight": np.ones((2, 1), np.float32), "conv.weight": np.ones((2, 1, 3, 3), np.float32)}
    path, before = write(NODE, arrays), values(model)
    assert error_of(WeightsError, backend.load_weights, model, path) == (
        f"{path}: does not fit the model; unexpected: bn.extra, fc.weight; missing: conv.bias, bn.running_mean; "
        "wrong shape: conv.weight (2, 1, 3, 3) instead of (2, 1, 1, 1), bn.weight (2, 1) instead of (2,)"
    )
    assert bits(values(model)) == bits(before)


def test_without_strict_names_may_differ_and_shapes_may_not(backend, model, arrays, write, values):
    missing, kept = arrays.pop("conv.bias"), values(model)["conv.bias"]
    assert not np.array_equal(kept, missing)
    path = write(NODE, arrays)
    assert error_of(WeightsError, backend.load, path) == f"{path}: does not fit the model; missing: conv.bias"
    path = write(NODE, arrays | {"fc.weight": FC})
    mismatch = backend.load_weights(model, path, strict=False)
    assert (mismatch.missing, mismatch.unexpected) == (("conv.bias",), ("fc.weight",))
    assert bits(values(model)) == bits(arrays | {"conv.bias": kept})
    path = write(NODE, arrays | {"conv.bias": missing, "bn.bias": np.ones(3, np.float32), "fc.weight": FC})
    message = error_of(WeightsError, backend.load_weights, model, path, strict=False)
    assert message == f"{path}: does not fit the model; wrong shape: bn.bias (3,) instead of (2,)"


def test_nan_and_infinity_are_refused(backend, model, arrays, write):
    for value in (np.nan, np.inf, -np.inf):
        arrays["conv.weight"][1, 0, 0, 0] = arrays["bn.running_var"][0] = value
        path = write(NODE, arrays)
        message = f"{path}: NaN or infinity in conv.weight, bn.running_var; the training run that saved it has diverged"
        assert error_of(WeightsError, backend.load, path) == message
        assert error_of(WeightsError, backend.load_weights, model, path) == message


def test_every_nan_of_every_dtype_is_found(backend, write, dtype):
    node, kind = _chain(fc=spec.Linear(in_features=1, out_features=1, bias=False)), DTYPES[dtype]
    ones = np.full((1, 1), 2 ** (8 * kind.itemsize) - 1, f"u{kind.itemsize}")
    quiet_bit = {"float16": 9, "bfloat16": 6, "float32": 22, "float64": 51}[dtype]
    signalling = ones & ~np.array(1 << quiet_bit, ones.dtype)
    for pattern in (ones, signalling):
        path = write(node, {"fc.weight": pattern.view(kind)})
        assert "NaN or infinity in fc.weight" in error_of(WeightsError, backend.load, path)


PREFIXES = ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module._orig_mod."]


@pytest.mark.parametrize("prefixes", [*([prefix] for prefix in PREFIXES), ["", *PREFIXES]], ids=" ".join)
def test_prefixes_of_wrappers_are_removed_from_each_key(backend, model, arrays, write, values, prefixes):
    path = write(NODE, {f"{p}{key}": array for p, (key, array) in zip(itertools.cycle(prefixes), arrays.items())})
    assert bits(values(backend.load(path))) == bits(arrays)
    assert backend.load_weights(model, path) == ((), ())
    assert bits(values(model)) == bits(arrays)


def test_a_name_with_and_without_a_prefix_is_refused(backend, arrays, write):
    path = write(NODE, arrays | {"module.bn.bias": arrays["bn.bias"]})
    message = f"{path}: bn.bias occurs twice, with and without the prefix of a wrapper"
    assert error_of(WeightsError, backend.load, path) == message
    for name in ("modules.0.weight", "agents.module.weight", "module"):  # without the prefix of a wrapper
        assert strip_prefix(name) == name


def test_batch_counters_are_ignored(backend, model, arrays, values, write):
    counters = {"bn.num_batches_tracked": np.array(3), "module.old.num_batches_tracked": np.array(1)}
    path = write(NODE, arrays | counters)
    assert backend.load_weights(model, path) == ((), ())
    assert backend.load_weights(backend.load(path), path, strict=False) == ((), ())
    assert bits(values(model)) == bits(arrays)


def test_names_that_would_break_a_line_are_quoted(arrays):
    strange = dict.fromkeys(("", "a\nb", "a\x1b[31m", "x" * 1000), FC)
    message = error_of(WeightsError, match, NODE, arrays | strange, source="file")
    assert "unexpected: '', 'a\\nb', 'a\\x1b[31m', 'xxxx" in message
    assert len(message) < 800


def _chain(**children):
    return spec.Sequential(children=children)


def _conv(**fields):
    return spec.Conv2d(in_channels=1, out_channels=2, kernel_size=3, **fields)


def _model(name="a", **fields):
    children = {"conv": _conv(), "bn": spec.BatchNorm2d(num_features=2, **fields)}
    return spec.Model(name=name, input_shape=(1, 4, 4), children=children)


def _parallel(merge="sum", weights=None):
    return spec.Parallel(children={"a": _conv(), "b": _conv()}, merge=merge, weights=weights)


LEAKY, DROPOUT = spec.Activation(function="leaky_relu"), spec.Dropout(p=0.5)
HALVES, QUARTERS = (_parallel("weighted", weights) for weights in ((0.5, 0.5), (0.25, 0.75)))
AVG, MAX, GLOBAL = spec.AvgPool2d(kernel_size=3), spec.MaxPool2d(kernel_size=2), spec.GlobalPool()
PLAIN, DYNAMIC = _chain(conv=_conv()), spec.maam(2, fusion="dynamic")
WITH_SILU = spec.parse_json(DYNAMIC.to_json().replace('"function": "softmax"', '"function": "silu"'))
DIFFERENT = [
    (LEAKY, LEAKY.replace(negative_slope=0.2), "negative_slope is 0.2 in the file and 0.01 in the model"),
    (_chain(p=AVG), _chain(p=AVG.replace(stride=2)), "p.stride is 2 in the file and 3 in the model"),
    (_chain(act=RELU), _chain(act=SILU), "act.function is 'silu' in the file and 'relu' in the model"),
    (_model(eps=1e-5), _model(eps=1e-3), "bn.eps is 0.001 in the file and 1e-05 in the model"),
    (PLAIN, _chain(conv=_conv(stride=2)), "conv.stride is 2 in the file and 1 in the model"),
    (_chain(a=_parallel()), _chain(a=_parallel("concat")), "a.merge is 'concat' in the file and 'sum' in the model"),
    (HALVES, QUARTERS, "weights is (0.25, 0.75) in the file and (0.5, 0.5) in the model"),
    (_chain(c=CONV, a=RELU, p=GLOBAL), _chain(c=CONV, p=GLOBAL, a=RELU), "layer 1 of the model is p in the file and a"),
    (PLAIN, spec.Residual(children={"conv": _conv()}), "the outermost layer is a residual in the file"),
    (_chain(conv=_conv(), act=RELU), PLAIN, "act is absent in the file and a activation"),
    (PLAIN, _chain(), "conv is absent in the file and a conv2d in the model"),
    (DYNAMIC, WITH_SILU, ": agents.weighting.softmax.function is 'silu' in the file"),
]
for name in ("init", "name", "momentum", "p"):  # a layer called like a field of training counts
    pair = _chain(conv=_conv(), **{name: RELU}), PLAIN
    DIFFERENT += [(*pair, f": {name} is a"), (*pair[::-1], f": {name} is a")]


@pytest.mark.parametrize(("own", "saved", "expected"), DIFFERENT)
def test_another_function_is_refused_with_the_first_difference(own, saved, expected):
    message = error_of(WeightsError, check_same_function, own, saved, source="file")
    assert message.startswith("file: saved with another spec: ")
    assert expected in message
    assert message.endswith("build the model from the file's own spec with load(), or pass strict=False")


def test_fields_without_effect_in_inference_may_differ():
    for one, other in (
        (_chain(p=MAX), _chain(p=MAX.replace(stride=2))),
        (RELU, RELU.replace(negative_slope=0.5)),
        (_model(momentum=0.1), _model(momentum=0.01)),
        (_model("a"), _model("b")),
        (PLAIN, _chain(conv=_conv(init="xavier_normal"))),
        (_chain(drop=DROPOUT, act=RELU), _chain(drop=spec.Dropout(p=0.1), act=RELU)),
        (DROPOUT, spec.Dropout(p=0.1)),
        (_chain(drop=DROPOUT, act=RELU), _chain(act=RELU)),
        (spec.preset("maam_digits", dropout=0.3), spec.preset("maam_digits")),
        (_chain(drop=DROPOUT, body=_model("a", momentum=0.5)), _chain(body=_model("b", momentum=0.2))),
    ):
        check_same_function(one, other, source="file")
        check_same_function(other, one, source="file")


def test_every_backend_checks_the_spec_when_strict(backend, tmp_path):
    path = tmp_path / "weights.safetensors"
    backend.save_weights(backend.build(spec.maam(4, act_layer="silu")), path)
    model = backend.build(spec.maam(4))
    assert error_of(WeightsError, backend.load_weights, model, path) == (
        f"{path}: saved with another spec: agents.0.act1.function is 'silu' in the file and 'relu' in the model; "
        "build the model from the file's own spec with load(), or pass strict=False"
    )
    assert backend.load_weights(model, path, strict=False) == ((), ())
    backend.save_weights(backend.build(spec.preset("maam_digits", dropout=0.3)), path)
    assert backend.load_weights(backend.build("maam_digits", seed=1), path) == ((), ())


def test_every_backend_writes_the_file_that_it_reads(backend, node, dtype, write, tmp_path):
    """The bytes are those of `write_weights`, so weights pass between any two backends without a change."""
    arrays = arbitrary(node, dtype)
    write_weights(tmp_path / "expected.safetensors", node, arrays)
    assert same(tmp_path / "expected.safetensors", arrays)
    backend.save_weights(backend.load(write(node, arrays), backend.dtype(dtype)), tmp_path / "found.safetensors")
    assert (tmp_path / "found.safetensors").read_bytes() == (tmp_path / "expected.safetensors").read_bytes()


def test_a_single_layer_is_loaded_and_saved_as_a_model_is(backend, write, tmp_path):
    options = {"fusion": "dynamic", "scales": (1, 2, 1)}
    node, layer = spec.maam(4, **options), backend.layer(**options)
    assert backend.load_weights(layer, write(node, arrays := arbitrary(node))) == ((), ())
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
    path = write(TWO, arrays)
    expected = {name: array.astype(DTYPES[wanted]) for name, array in arrays.items()}
    if (dtype, wanted) == ("float64", "bfloat16"):  # which ml_dtypes rounds twice
        expected["fc.bias"][0] = 1 + 2.0**-7
    model = backend.build(TWO, wanted)
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
    assert "too large for bfloat16" in error_of(WeightsError, rounded, [1e39])


def test_values_and_dtypes_that_are_refused(backend, write, values):
    arrays = _ordinary("float32")
    arrays["fc.weight"][0, 1], arrays["fc.bias"][1] = 70000, -70000
    path = write(TWO, arrays)
    message = f"{path}: too large for float16: fc.weight, fc.bias; use a wider dtype"
    assert error_of(WeightsError, backend.load, path, dtype=backend.dtype("float16")) == message
    before = bits(values(model := backend.build(TWO, "float16")))
    assert error_of(WeightsError, backend.load_weights, model, path) == message
    assert bits(values(model)) == before
    for wrong in ("int32", "complex64"):
        with pytest.raises(WeightsError, match=r"^dtype: expected one of .*loat64, got "):
            backend.load(path, dtype=backend.dtype(wrong))


def test_models_loaded_twice_are_independent(backend, write, values):
    path = write(TWO, arrays := _ordinary("float32"))
    first, second = backend.load(path), backend.load(path)
    backend.load_weights(first, write(TWO, {name: array + 1 for name, array in arrays.items()}, "other.safetensors"))
    assert bits(values(second)) == bits(arrays)
    assert same(path, arrays)


def _ordinary(dtype):
    """Return arrays of TWO, with a value that depends on rounding once or through float32."""
    weight = [[1 + 2.0**-11 + 2.0**-40, -1 / 3, 1e-6], [1e-9, -0.0, 1234.5]]
    return {"fc.weight": np.array(weight, DTYPES[dtype]), "fc.bias": np.array([ABOVE_A_TIE, 3.0], DTYPES[dtype])}


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
