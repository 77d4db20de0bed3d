"""Loading: names, shapes, values, and specs that compute something else."""

import itertools

import numpy as np
import pytest
import safetensors.numpy

from maam import spec
from maam.errors import WeightsError
from maam.weights import match
from maam.weights.file import FORMAT, VERSION
from maam.weights.match import check_same_function, strip_prefix
from tests.errors import error_of
from tests.weights.helpers import DTYPES, arbitrary, bits

RELU, SILU = (spec.Activation(function=name) for name in ("relu", "silu"))
CONV = spec.Conv2d(in_channels=1, out_channels=2, kernel_size=1)
NODE = spec.Sequential(children={"conv": CONV, "bn": spec.BatchNorm2d(num_features=2), "act": RELU})
FC = np.float32([1])


@pytest.fixture
def arrays():
    return arbitrary(NODE)


@pytest.fixture
def model(backend):
    return backend.build(NODE)


def test_strict_loading_lists_every_name_that_does_not_fit(backend, model, arrays, write, values):
    del arrays["conv.bias"], arrays["bn.running_mean"]
    arrays |= {"fc.weight": FC, "bn.extra": FC}
    arrays["bn.weight"], arrays["conv.weight"] = np.ones((2, 1), np.float32), np.ones((2, 1, 3, 3), np.float32)
    path = write(NODE, arrays)
    before = values(model)
    assert error_of(WeightsError, backend.load_weights, model, path) == (
        f"{path}: does not fit the model; unexpected: bn.extra, fc.weight; missing: conv.bias, bn.running_mean; "
        "wrong shape: conv.weight (2, 1, 3, 3) instead of (2, 1, 1, 1), bn.weight (2, 1) instead of (2,)"
    )
    assert bits(values(model)) == bits(before)


def test_loading_without_strict_returns_the_mismatch(backend, model, arrays, write, values):
    missing = arrays.pop("conv.bias")
    before = values(model)
    path = write(NODE, arrays | {"fc.weight": FC})
    mismatch = backend.load_weights(model, path, strict=False)
    assert (mismatch.missing, mismatch.unexpected) == (("conv.bias",), ("fc.weight",))
    after = values(model)
    assert bits(after) == bits(arrays | {"conv.bias": before["conv.bias"]})
    assert not np.array_equal(after["conv.bias"], missing)


def test_arrays_that_do_not_fit_are_refused_by_load_and_without_strict(backend, model, arrays, write):
    path = write(NODE, {name: array for name, array in arrays.items() if name != "conv.bias"})
    assert error_of(WeightsError, backend.load, path) == f"{path}: does not fit the model; missing: conv.bias"
    path = write(NODE, arrays | {"bn.bias": np.ones(3, np.float32), "fc.weight": FC})
    message = error_of(WeightsError, backend.load_weights, model, path, strict=False)
    assert message == f"{path}: does not fit the model; wrong shape: bn.bias (3,) instead of (2,)"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(backend, model, arrays, write, value):
    arrays["conv.weight"][1, 0, 0, 0] = value
    arrays["bn.running_var"][0] = value
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
        with pytest.raises(WeightsError, match=r"NaN or infinity in fc\.weight"):
            backend.load(write(node, {"fc.weight": pattern.view(kind)}))


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


def test_batch_counters_are_ignored(backend, model, arrays, values, tmp_path):
    path = tmp_path / "weights.safetensors"
    counters = {"bn.num_batches_tracked": np.array(3), "module.old.num_batches_tracked": np.array(1)}
    header = {"format": FORMAT, "format_version": VERSION, "spec": NODE.to_json()}
    safetensors.numpy.save_file(arrays | counters, path, header)
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


@pytest.mark.parametrize(("own", "saved", "expected"), DIFFERENT)
def test_another_function_is_refused_with_the_first_difference(own, saved, expected):
    message = error_of(WeightsError, check_same_function, own, saved, source="file")
    assert message.startswith("file: saved with another spec: ")
    assert expected in message
    assert message.endswith("build the model from the file's own spec with load(), or pass strict=False")


@pytest.mark.parametrize("name", ["init", "name", "momentum", "p"])
def test_a_layer_called_like_a_training_field_counts(name):
    pair = _chain(conv=_conv(), **{name: RELU}), PLAIN
    for own, saved in (pair, pair[::-1]):
        with pytest.raises(WeightsError, match=f": {name} is a"):
            check_same_function(own, saved, source="file")


SAME = [
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
]


@pytest.mark.parametrize(("own", "saved"), SAME)
def test_fields_without_effect_in_inference_may_differ(own, saved):
    check_same_function(own, saved, source="file")
    check_same_function(saved, own, source="file")


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
