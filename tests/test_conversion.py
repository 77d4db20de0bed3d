import itertools
import os

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from maam import spec
from maam.backend.convert import convert
from maam.errors import PresetError, SpecError, WeightsError
from maam.weights import read_weights, write_weights

pytest.importorskip("torch")
pytest.importorskip("mindspore")
NODE = spec.maam_classifier(
    3, 1, image_size=8, channels=4, hidden_features=6, num_agents=2, fusion="dynamic", depthwise=True
)
SUFFIXES = (".safetensors", ".pth", ".pt", ".pth.tar", ".ckpt")
DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}


def arbitrary(node, dtype):
    """Arrays of random finite bits; no variance is negative."""
    generator = np.random.default_rng(0)

    def one(shape):
        array = np.frombuffer(generator.bytes(dtype.itemsize * int(np.prod(shape))), dtype).copy()
        with np.errstate(invalid="ignore"):
            array[~np.isfinite(array)] = 0
        return array.reshape(shape)

    positive = spec.Role.RUNNING_VAR
    return {p.name: np.abs(one(p.shape)) if p.role is positive else one(p.shape) for p in node.parameters()}


@pytest.fixture
def arrays():
    return arbitrary(NODE, DTYPES["float32"])


@pytest.fixture
def weights(tmp_path, arrays):
    write_weights(tmp_path / "weights.safetensors", NODE, arrays)
    return tmp_path / "weights.safetensors"


def same(path, arrays, node=NODE):
    found_node, found = read_weights(path)
    assert found_node == node
    assert {n: (a.dtype, a.shape, a.tobytes()) for n, a in found.items()} == {
        n: (a.dtype, a.shape, a.tobytes()) for n, a in arrays.items()
    }
    return True


def refused(src, dst, node=None):
    """The one line with which a conversion is refused."""
    with pytest.raises(WeightsError) as caught:
        convert(src, dst, node)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 800
    return message


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pair", list(itertools.product(SUFFIXES, repeat=2)), ids="".join)
def test_every_bit_passes_in_every_direction(pair, dtype, tmp_path):
    arrays = arbitrary(NODE, DTYPES[dtype])
    write_weights(tmp_path / "start.safetensors", NODE, arrays)
    route = ["start.safetensors", f"first{pair[0]}", f"second{pair[1]}", "end.safetensors"]
    for src, dst in itertools.pairwise(route):
        assert convert(tmp_path / src, tmp_path / dst, NODE) == NODE
    assert same(tmp_path / "end.safetensors", arrays)
    assert sorted(os.listdir(tmp_path)) == sorted(route)


def test_mixed_dtypes_are_kept(tmp_path):
    kinds = itertools.cycle(DTYPES.values())
    whole = {kind: arbitrary(NODE, kind) for kind in DTYPES.values()}
    arrays = {p.name: whole[next(kinds)][p.name] for p in NODE.parameters()}
    write_weights(tmp_path / "a.safetensors", NODE, arrays)
    for src, dst in itertools.pairwise(["a.safetensors", "b.pth", "c.ckpt", "d.pth.tar", "e.safetensors"]):
        convert(tmp_path / src, tmp_path / dst, NODE)
    assert same(tmp_path / "e.safetensors", arrays)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_array_is_rounded_once(suffix, dtype, tmp_path):
    generator = np.random.default_rng(0)
    arrays = {p.name: 1 + generator.random(p.shape) / 2**7 for p in NODE.parameters()}
    arrays["classifier.fc2.bias"] = np.full(3, 1 + 2.0**-11 + 2.0**-40)  # another number by way of float32
    write_weights(tmp_path / "a.safetensors", NODE, arrays)
    convert(tmp_path / "a.safetensors", tmp_path / f"b{suffix}", dtype=dtype)
    convert(tmp_path / f"b{suffix}", tmp_path / "c.safetensors", NODE)
    assert same(tmp_path / "c.safetensors", {name: array.astype(DTYPES[dtype]) for name, array in arrays.items()})


def test_what_cannot_be_rounded_is_refused(arrays, tmp_path):
    arrays = {name: np.ones_like(array) for name, array in arrays.items()}
    arrays["classifier.fc2.bias"][1] = 70000
    write_weights(tmp_path / "a.safetensors", NODE, arrays)
    (tmp_path / "b.safetensors").write_text("kept")
    with pytest.raises(WeightsError, match=r"a.safetensors: too large for float16: classifier.fc2.bias; take a"):
        convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", dtype="float16")
    with pytest.raises(WeightsError, match=r"^dtype: expected one of float16, bfloat16, float32, float64, got float8$"):
        convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", dtype="float8")
    assert (tmp_path / "b.safetensors").read_text() == "kept"


@pytest.mark.parametrize("node", [spec.maam(4, scales=(1, 2, 1)), spec.rnn(3, 1, image_size=4)], ids=["layer", "rnn"])
def test_layers_and_recurrent_models_are_converted_too(node, tmp_path):
    arrays = arbitrary(node, DTYPES["float32"])
    write_weights(tmp_path / "a.safetensors", node, arrays)
    for src, dst in itertools.pairwise(["a.safetensors", "b.ckpt", "c.pt", "d.safetensors"]):
        convert(tmp_path / src, tmp_path / dst, node)
    assert same(tmp_path / "d.safetensors", arrays, node)


def test_paths_may_be_strings_and_the_spec_a_preset(tmp_path):
    node = spec.preset("maam_digits")
    write_weights(tmp_path / "a.safetensors", node, arrays := arbitrary(node, DTYPES["float32"]))
    convert(f"{tmp_path}/a.safetensors", f"{tmp_path}/b.pth")
    assert convert(f"{tmp_path}/b.pth", f"{tmp_path}/c.safetensors", "maam_digits") == node
    assert same(tmp_path / "c.safetensors", arrays, node)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
def test_a_file_without_a_spec_needs_one(weights, tmp_path, suffix):
    convert(weights, tmp_path / f"in{suffix}")
    message = refused(tmp_path / f"in{suffix}", tmp_path / "out.safetensors")
    remedy = "give one as spec (--spec): a preset's name, or a spec (a JSON file of one)"
    assert message == f"{tmp_path}/in{suffix}: carries no spec; {remedy}"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth.tar"])
def test_a_file_with_a_spec_needs_none(weights, arrays, tmp_path, suffix):
    convert(weights, tmp_path / f"in{suffix}")
    assert convert(tmp_path / f"in{suffix}", tmp_path / "out.safetensors") == NODE
    assert same(tmp_path / "out.safetensors", arrays)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth.tar"])
def test_two_specs_must_agree(tmp_path, suffix):
    own, other = (spec.maam(4, act_layer=name) for name in ("relu", "silu"))
    write_weights(tmp_path / "start.safetensors", own, arbitrary(own, DTYPES["float32"]))
    convert(tmp_path / "start.safetensors", tmp_path / f"in{suffix}")
    assert refused(tmp_path / f"in{suffix}", tmp_path / "out.pt", other) == (
        f"{tmp_path}/in{suffix}: saved with another spec: agents.0.act1.function is 'relu' in the file and 'silu' "
        "in the model; leave spec (--spec) out to use the file's own"
    )


def test_of_two_specs_that_agree_the_one_in_the_file_is_kept(weights, tmp_path):
    assert convert(weights, tmp_path / "out.pth.tar", NODE.replace(name="another")) == NODE
    assert convert(tmp_path / "out.pth.tar", tmp_path / "out.safetensors") == NODE


def test_an_unknown_preset(weights, tmp_path):
    with pytest.raises(PresetError, match="did you mean 'maam_digits'"):
        convert(weights, tmp_path / "out.pth", "maam_digit")


def test_a_spec_that_is_none(weights, tmp_path):
    with pytest.raises(SpecError, match="expected a spec or the name of a preset, got an object of type dict"):
        convert(weights, tmp_path / "out.pth", {"kind": "identity"})


def test_a_foreign_safetensors_file_needs_a_spec(arrays, tmp_path):
    counters = {"agents.0.bn1.num_batches_tracked": np.array(3)}
    safetensors.numpy.save_file(arrays | counters, tmp_path / "in.safetensors", {"format": "pt"})
    assert "carries no spec; give one as spec" in refused(tmp_path / "in.safetensors", tmp_path / "out.safetensors")
    convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors", NODE)
    assert same(tmp_path / "out.safetensors", arrays)


def test_arrays_that_do_not_fit_are_refused(arrays, tmp_path):
    del arrays["agents.weighting.fc.bias"]
    arrays["classifier.fc2.bias"] = np.float32([np.nan] * 3)
    safetensors.numpy.save_file(arrays, tmp_path / "in.safetensors")
    message = refused(tmp_path / "in.safetensors", tmp_path / "out.pth", NODE)
    assert message == f"{tmp_path}/in.safetensors: does not fit the model; missing: agents.weighting.fc.bias"
    assert not (tmp_path / "out.pth").exists()


def test_nan_is_refused(arrays, tmp_path):
    arrays["classifier.fc2.bias"] = np.float32([np.nan] * 3)
    safetensors.numpy.save_file(arrays, tmp_path / "in.safetensors")
    assert "NaN or infinity in classifier.fc2.bias" in refused(tmp_path / "in.safetensors", tmp_path / "o.pt", NODE)


def test_a_model_instead_of_a_file(tmp_path):
    with pytest.raises(
        WeightsError, match=r"got an object of type Sequential; write a model to one first, with save_weig"
    ):
        convert(spec.Sequential(children={"act": spec.Activation(function="relu")}), tmp_path / "out.pth")
