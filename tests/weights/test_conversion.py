"""Conversion: paths, dtypes, specs and other formats."""

import errno
import importlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from maam import spec
from maam.backend.convert import convert
from maam.errors import MissingFrameworkError, PresetError, SpecError, WeightsError
from maam.weights import write_weights
from tests.weights.helpers import DTYPES, arbitrary, refused, same

pytest.importorskip("torch")
pytest.importorskip("mindspore")
NODE = spec.maam_classifier(
    3, 1, image_size=8, channels=4, hidden_features=6, num_agents=2, fusion="dynamic", depthwise=True
)
SUFFIXES = (".safetensors", ".pth", ".pt", ".pth.tar", ".ckpt")


@pytest.fixture
def arrays():
    return arbitrary(NODE, "float32")


@pytest.fixture
def weights(tmp_path, arrays):
    write_weights(tmp_path / "weights.safetensors", NODE, arrays)
    return tmp_path / "weights.safetensors"


ROUTES = [
    pytest.param(pair, dtype, marks=() if dtype == "float32" or pair == (".pth", ".ckpt") else pytest.mark.slow)
    for pair in itertools.product(SUFFIXES, repeat=2)
    for dtype in DTYPES
]


@pytest.mark.parametrize(("pair", "dtype"), ROUTES)
def test_conversion_in_every_direction_keeps_every_bit(pair, dtype, tmp_path):
    arrays = arbitrary(NODE, dtype)
    write_weights(tmp_path / "start.safetensors", NODE, arrays)
    route = ["start.safetensors", f"first{pair[0]}", f"second{pair[1]}", "end.safetensors"]
    for src, dst in itertools.pairwise(route):
        assert convert(tmp_path / src, tmp_path / dst, NODE) == NODE
    assert same(tmp_path / "end.safetensors", arrays, NODE)
    assert sorted(os.listdir(tmp_path)) == sorted(route)


def test_mixed_dtypes_are_kept(tmp_path):
    kinds = itertools.cycle(DTYPES)
    whole = {kind: arbitrary(NODE, kind) for kind in DTYPES}
    arrays = {p.name: whole[next(kinds)][p.name] for p in NODE.parameters()}
    write_weights(tmp_path / "a.safetensors", NODE, arrays)
    for src, dst in itertools.pairwise(["a.safetensors", "b.pth", "c.ckpt", "d.pth.tar", "e.safetensors"]):
        convert(tmp_path / src, tmp_path / dst, NODE)
    assert same(tmp_path / "e.safetensors", arrays, NODE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_array_is_rounded_once(suffix, dtype, tmp_path):
    generator = np.random.default_rng(0)
    arrays = {p.name: 1 + generator.random(p.shape) / 2**7 for p in NODE.parameters()}
    arrays["classifier.fc2.bias"] = np.full(3, 1 + 2.0**-11 + 2.0**-40)  # rounds to another number through float32
    write_weights(tmp_path / "a.safetensors", NODE, arrays)
    convert(tmp_path / "a.safetensors", tmp_path / f"b{suffix}", dtype=dtype)
    convert(tmp_path / f"b{suffix}", tmp_path / "c.safetensors", NODE)
    assert same(tmp_path / "c.safetensors", {name: array.astype(DTYPES[dtype]) for name, array in arrays.items()})


def test_errors_for_values_that_are_too_large(arrays, tmp_path):
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
    arrays = arbitrary(node, "float32")
    write_weights(tmp_path / "a.safetensors", node, arrays)
    for src, dst in itertools.pairwise(["a.safetensors", "b.ckpt", "c.pt", "d.safetensors"]):
        convert(tmp_path / src, tmp_path / dst, node)
    assert same(tmp_path / "d.safetensors", arrays, node)


def test_paths_may_be_strings_and_the_spec_a_preset(tmp_path):
    node = spec.preset("maam_digits")
    write_weights(tmp_path / "a.safetensors", node, arrays := arbitrary(node, "float32"))
    convert(f"{tmp_path}/a.safetensors", f"{tmp_path}/b.pth")
    assert convert(f"{tmp_path}/b.pth", f"{tmp_path}/c.safetensors", "maam_digits") == node
    assert same(tmp_path / "c.safetensors", arrays, node)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
def test_a_file_without_a_spec_needs_one(weights, tmp_path, suffix):
    convert(weights, tmp_path / f"in{suffix}")
    message = refused(tmp_path / f"in{suffix}", tmp_path / "out.safetensors")
    remedy = "pass one as spec (--spec): the name of a preset, or a spec (its JSON file)"
    assert message == f"{tmp_path}/in{suffix}: holds no spec; {remedy}"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth.tar"])
def test_a_file_with_a_spec_needs_none(weights, arrays, tmp_path, suffix):
    convert(weights, tmp_path / f"in{suffix}")
    assert convert(tmp_path / f"in{suffix}", tmp_path / "out.safetensors") == NODE
    assert same(tmp_path / "out.safetensors", arrays, NODE)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth.tar"])
def test_two_specs_must_agree(tmp_path, suffix):
    own, other = (spec.maam(4, act_layer=name) for name in ("relu", "silu"))
    write_weights(tmp_path / "start.safetensors", own, arbitrary(own, "float32"))
    convert(tmp_path / "start.safetensors", tmp_path / f"in{suffix}")
    assert refused(tmp_path / f"in{suffix}", tmp_path / "out.pt", other) == (
        f"{tmp_path}/in{suffix}: saved with another spec: agents.0.act1.function is 'relu' in the file and 'silu' "
        "in the model; leave spec (--spec) out to use the file's own"
    )


def test_the_spec_in_the_file_is_kept_if_both_agree(weights, tmp_path):
    assert convert(weights, tmp_path / "out.pth.tar", NODE.replace(name="another")) == NODE
    assert convert(tmp_path / "out.pth.tar", tmp_path / "out.safetensors") == NODE


def test_an_unknown_preset(weights, tmp_path):
    with pytest.raises(PresetError, match="did you mean 'maam_digits'"):
        convert(weights, tmp_path / "out.pth", "maam_digit")


def test_objects_that_are_not_specs(weights, tmp_path):
    with pytest.raises(SpecError, match="expected a spec or the name of a preset, got an object of type dict"):
        convert(weights, tmp_path / "out.pth", {"kind": "identity"})


def test_a_foreign_safetensors_file_needs_a_spec(arrays, tmp_path):
    counters = {"agents.0.bn1.num_batches_tracked": np.array(3)}
    safetensors.numpy.save_file(arrays | counters, tmp_path / "in.safetensors", {"format": "pt"})
    assert "holds no spec; pass one as spec" in refused(tmp_path / "in.safetensors", tmp_path / "out.safetensors")
    convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors", NODE)
    assert same(tmp_path / "out.safetensors", arrays, NODE)


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
    with pytest.raises(WeightsError, match=r"got an object of type Sequential; save a model first: save_weights"):
        convert(spec.Sequential(children={"act": spec.Activation(function="relu")}), tmp_path / "out.pth")


@pytest.mark.parametrize(("src", "dst"), [("a.bin", "b.pth"), ("weights.safetensors", "b.onnx"), ("a.tar", "b.pt")])
def test_an_unknown_suffix(weights, tmp_path, src, dst):
    wrong = src if src != weights.name else dst
    assert refused(tmp_path / src, tmp_path / dst) == (
        f"{tmp_path / wrong}: unknown suffix {Path(wrong).suffix!r}; "
        "expected one of .safetensors, .pth, .pt, .pth.tar, .ckpt"
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_source(tmp_path, suffix):
    assert refused(tmp_path / f"a{suffix}", tmp_path / "b.pth") == f"{tmp_path}/a{suffix}: no such file"


@pytest.mark.parametrize("names", [("a" * 300 + ".pth", "b.pth"), (None, "b" * 300 + ".pth")])
def test_names_that_are_too_long(weights, tmp_path, names):
    src, dst = (weights if name is None else tmp_path / name for name in names)
    assert refused(src, dst) == f"{dst if names[0] is None else src}: File name too long"


def test_a_folder_as_source_or_destination(weights, tmp_path):
    (tmp_path / "folder.pth").mkdir()
    for src, dst in ((tmp_path / "folder.pth", tmp_path / "b.pt"), (weights, tmp_path / "folder.pth")):
        assert refused(src, dst) == f"{tmp_path}/folder.pth: a folder; give a file"


def test_a_missing_destination_folder(weights, tmp_path):
    path = tmp_path / "none" / "b.pth"
    assert refused(weights, path) == f"{path}: there is no folder {path.parent}; make it first"


def test_one_file_as_source_and_destination(weights, tmp_path, monkeypatch):
    before = weights.read_bytes()
    (tmp_path / "link.safetensors").symlink_to(weights)
    monkeypatch.chdir(tmp_path)
    for dst in (weights, tmp_path / "link.safetensors", Path("weights.safetensors")):
        assert refused(weights, dst) == f"{dst}: source and destination are one file; give another destination"
    assert weights.read_bytes() == before


def _fail(*args, **kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("failure", ["while flushing", "at the rename", "while writing"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failed_write_does_not_change_the_old_file(weights, tmp_path, monkeypatch, suffix, failure):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / f"old{suffix}").write_bytes(b"old")
    importlib.import_module("maam.mindspore")
    serialization = importlib.import_module("mindspore.train.serialization")
    with monkeypatch.context() as patch:
        if failure == "while writing":
            patch.setattr(Path, "write_bytes", _fail)
            patch.setattr(serialization, "_write_parameter_bytes_data", _fail)
        else:
            patch.setattr(*((os, "fsync") if failure == "while flushing" else (Path, "replace")), _fail)
        message = refused(weights, folder / f"old{suffix}")
    assert message == f"{folder}/old{suffix}: cannot be written: No space left on device"
    assert (folder / f"old{suffix}").read_bytes() == b"old"
    assert os.listdir(folder) == [f"old{suffix}"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_have_the_usual_mode_and_keep_the_one_they_had(weights, tmp_path, suffix):
    path = tmp_path / f"new{suffix}"
    before = os.umask(0o022)
    try:
        convert(weights, path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o640)
    convert(weights, path)
    assert path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o400)
    convert(weights, path)
    assert path.stat().st_mode & 0o777 == 0o400


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_two_conversions_write_the_same_bytes(weights, tmp_path, suffix):
    convert(weights, tmp_path / f"a{suffix}")
    convert(weights, tmp_path / f"b{suffix}")
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_frameworks_are_loaded_only_if_needed():
    script = "import maam.backend.convert, sys; print({'torch', 'mindspore', 'pandas'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


@pytest.mark.parametrize(("suffix", "package"), [(".pth", "torch"), (".ckpt", "mindspore")])
def test_a_missing_framework_is_an_error_before_reading(weights, tmp_path, monkeypatch, suffix, package):
    for name in list(sys.modules):
        if name == f"maam.{package}" or name.startswith(f"maam.{package}."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        MissingFrameworkError, match=rf"^{package} is not installed; run: pip install 'maam\[{package}\]'"
    ):
        convert(weights, tmp_path / f"out{suffix}")
