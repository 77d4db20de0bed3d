import itertools

import numpy as np
import pytest
import safetensors.numpy

from maam import spec
from maam.errors import WeightsError
from maam.weights import match
from maam.weights.file import FORMAT, VERSION
from maam.weights.match import strip_prefix

NODE = spec.Sequential(
    children={
        "conv": spec.Conv2d(in_channels=1, out_channels=2, kernel_size=1),
        "bn": spec.BatchNorm2d(num_features=2),
        "act": spec.Activation(function="relu"),
    }
)


@pytest.fixture
def arrays(arbitrary):
    return arbitrary(NODE, "float32")


@pytest.fixture
def model(room):
    return room.build(NODE)


def _values(room, model, path):
    room.save_weights(model, path)
    return safetensors.numpy.load_file(path)


def test_strict_loading_lists_every_name_that_does_not_fit(room, model, arrays, write, tmp_path):
    del arrays["conv.bias"], arrays["bn.running_mean"]
    arrays |= {"fc.weight": np.float32([1]), "bn.extra": np.float32([1])}
    arrays["bn.weight"], arrays["conv.weight"] = np.ones((2, 1), np.float32), np.ones((2, 1, 3, 3), np.float32)
    path = write(NODE, arrays)
    before = _values(room, model, tmp_path / "before.safetensors")
    with pytest.raises(WeightsError) as caught:
        room.load_weights(model, path)
    assert str(caught.value) == (
        f"{path}: does not fit the model; unexpected: bn.extra, fc.weight; missing: conv.bias, bn.running_mean; "
        "wrong shape: conv.weight (2, 1, 3, 3) instead of (2, 1, 1, 1), bn.weight (2, 1) instead of (2,)"
    )
    after = _values(room, model, tmp_path / "after.safetensors")
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_load_refuses_a_file_whose_arrays_do_not_fit_its_spec(room, arrays, write):
    del arrays["conv.bias"]
    path = write(NODE, arrays)
    with pytest.raises(WeightsError) as caught:
        room.load(path)
    assert str(caught.value) == f"{path}: does not fit the model; missing: conv.bias"


def test_loose_loading_takes_what_fits_and_returns_the_rest(room, model, arrays, write, tmp_path):
    missing = arrays.pop("conv.bias")
    before = _values(room, model, tmp_path / "before.safetensors")
    path = write(NODE, arrays | {"fc.weight": np.float32([1])})
    mismatch = room.load_weights(model, path, strict=False)
    assert mismatch.missing == ("conv.bias",)
    assert mismatch.unexpected == ("fc.weight",)
    after = _values(room, model, tmp_path / "after.safetensors")
    assert all(np.array_equal(after[name], array) for name, array in arrays.items())
    assert np.array_equal(after["conv.bias"], before["conv.bias"])
    assert not np.array_equal(after["conv.bias"], missing)


def test_loose_loading_still_refuses_wrong_shapes(room, model, arrays, write):
    arrays["bn.bias"] = np.ones(3, np.float32)
    path = write(NODE, arrays | {"fc.weight": np.float32([1])})
    with pytest.raises(WeightsError) as caught:
        room.load_weights(model, path, strict=False)
    assert str(caught.value) == f"{path}: does not fit the model; wrong shape: bn.bias (3,) instead of (2,)"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(room, model, arrays, write, value):
    arrays["conv.weight"][1, 0, 0, 0] = value
    arrays["bn.running_var"][0] = value
    path = write(NODE, arrays)
    message = f"{path}: NaN or infinity in conv.weight, bn.running_var; the run that saved it has diverged"
    for load in (room.load, lambda path: room.load_weights(model, path)):
        with pytest.raises(WeightsError) as caught:
            load(path)
        assert str(caught.value) == message


def test_every_nan_of_every_dtype_is_found(room, write, dtypes, dtype):
    node = spec.Sequential(children={"fc": spec.Linear(in_features=1, out_features=1, bias=False)})
    kind = dtypes[dtype]
    ones = np.full((1, 1), 2 ** (8 * kind.itemsize) - 1, f"u{kind.itemsize}")
    quiet_bit = {"float16": 9, "bfloat16": 6, "float32": 22, "float64": 51}[dtype]
    signalling = ones & ~np.array(1 << quiet_bit, ones.dtype)
    for bits in (ones, signalling):
        with pytest.raises(WeightsError, match=r"NaN or infinity in fc\.weight"):
            room.load(write(node, {"fc.weight": bits.view(kind)}))


def test_a_model_that_maam_did_not_build_is_told_so(room, write, arrays):
    with pytest.raises(WeightsError, match=r"has no \.spec; give a model or layer that maam built or loaded"):
        room.load_weights(_foreign(room), write(NODE, arrays))


def _foreign(room):
    if room.name == "torch":
        return pytest.importorskip("torch").nn.Linear(1, 1)
    if room.name == "mindspore":
        return pytest.importorskip("mindspore").nn.Dense(1, 1)
    return object()


PREFIXES = ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module._orig_mod."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_wrappers_are_taken_off(room, arrays, write, same, tmp_path, prefix):
    model = room.load(write(NODE, {f"{prefix}{name}": array for name, array in arrays.items()}))
    room.save_weights(model, tmp_path / "again.safetensors")
    assert same(tmp_path / "again.safetensors", arrays)


def test_prefixes_are_taken_off_key_by_key(room, model, arrays, write, same, tmp_path):
    prefixes = itertools.cycle(["", *PREFIXES])
    path = write(NODE, {f"{next(prefixes)}{name}": array for name, array in arrays.items()})
    assert room.load_weights(model, path) == ((), ())
    room.save_weights(model, tmp_path / "again.safetensors")
    assert same(tmp_path / "again.safetensors", arrays)


def test_a_name_with_and_without_a_prefix_is_refused(room, arrays, write):
    path = write(NODE, arrays | {"module.bn.bias": arrays["bn.bias"]})
    with pytest.raises(WeightsError) as caught:
        room.load(path)
    assert str(caught.value) == f"{path}: bn.bias is there twice, with and without the prefix of a wrapper"


def test_a_prefix_is_only_taken_off_where_it_is_one():
    assert strip_prefix("modules.0.weight") == "modules.0.weight"
    assert strip_prefix("agents.module.weight") == "agents.module.weight"
    assert strip_prefix("module") == "module"


def test_batch_counters_never_count(room, model, arrays, same, tmp_path):
    path = tmp_path / "weights.safetensors"
    counters = {"bn.num_batches_tracked": np.int64(3), "module.old.num_batches_tracked": np.int64(1)}
    header = {"format": FORMAT, "format_version": VERSION, "spec": NODE.to_json()}
    safetensors.numpy.save_file(arrays | {name: np.array(value) for name, value in counters.items()}, path, header)
    assert room.load_weights(model, path) == ((), ())
    assert room.load_weights(room.load(path), path, strict=False) == ((), ())
    room.save_weights(model, tmp_path / "again.safetensors")
    assert same(tmp_path / "again.safetensors", arrays)


def test_names_that_would_break_a_line_are_quoted(arrays):
    strange = {"": 0, "a\nb": 0, "a\x1b[31m": 0, "x" * 1000: 0}
    with pytest.raises(WeightsError) as caught:
        match(NODE, arrays | {name: np.float32([1]) for name in strange}, source="file")
    message = str(caught.value)
    assert message.isprintable()
    assert "unexpected: '', 'a\\nb', 'a\\x1b[31m', 'xxxx" in message
    assert len(message) < 800
