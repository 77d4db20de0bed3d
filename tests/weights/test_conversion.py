"""Conversion: paths, dtypes, specs and other formats."""

import itertools
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from maam import spec
from maam.backend.convert import convert
from maam.errors import MissingFrameworkError, PresetError, SpecError, WeightsError
from maam.weights import write_weights
from tests.errors import error_of
from tests.weights.helpers import DTYPES, NODE, arbitrary, converts_to, mixed, refused, same

pytest.importorskip("torch")
pytest.importorskip("mindspore")
SUFFIXES = (".safetensors", ".pth", ".pt", ".pth.tar", ".ckpt")
ROUTES = [
    pytest.param(pair, dtype, marks=() if dtype == "float32" or pair == (".pth", ".ckpt") else pytest.mark.slow)
    for pair in itertools.product(SUFFIXES, repeat=2)
    for dtype in DTYPES
]
each_format = pytest.mark.parametrize("suffix", SUFFIXES)


@pytest.fixture
def file(weights, tmp_path, request):
    """Convert `weights` to the format with the suffix of the test."""
    path = tmp_path / f"in{request.getfixturevalue('suffix')}"
    convert(weights, path)
    return path


def convert_through(folder, suffixes, node, arrays):
    """Check that arrays are the same after conversion through files with these suffixes, and that no other is left."""
    files = [f"{index}{suffix}" for index, suffix in enumerate([".safetensors", *suffixes, ".safetensors"])]
    write_weights(folder / files[0], node, arrays)
    for src, dst in itertools.pairwise(files):
        assert convert(folder / src, folder / dst, node) == node
    assert same(folder / files[-1], arrays, node)
    assert sorted(os.listdir(folder)) == files


@pytest.mark.parametrize(("pair", "dtype"), ROUTES)
def test_conversion_in_every_direction_keeps_every_bit(pair, dtype, tmp_path):
    convert_through(tmp_path, pair, NODE, arbitrary(NODE, dtype))


def test_mixed_dtypes_layers_and_recurrent_models(tmp_path):
    layer, network = spec.maam(4, scales=(1, 2, 1)), spec.rnn(3, 1, image_size=4)
    for node, arrays in ((NODE, mixed(NODE)), (layer, arbitrary(layer)), (network, arbitrary(network))):
        convert_through(tmp_path, [".pth", ".ckpt", ".pth.tar"], node, arrays)


@pytest.mark.parametrize("dtype", DTYPES)
@each_format
def test_every_array_is_rounded_once(suffix, dtype, tmp_path):
    generator = np.random.default_rng(0)
    arrays = {p.name: 1 + generator.random(p.shape) / 2**7 for p in NODE.parameters()}
    arrays["classifier.fc2.bias"] = np.full(3, 1 + 2.0**-11 + 2.0**-40)  # rounds to another number through float32
    write_weights(tmp_path / "a.safetensors", NODE, arrays)
    convert(tmp_path / "a.safetensors", tmp_path / f"b{suffix}", dtype=dtype)
    assert converts_to(tmp_path / f"b{suffix}", {name: array.astype(DTYPES[dtype]) for name, array in arrays.items()})


def test_errors_for_values_that_are_too_large(write, tmp_path):
    arrays = {p.name: np.ones(p.shape, np.float32) for p in NODE.parameters()}
    arrays["classifier.fc2.bias"][1] = 70000
    src, dst = write(NODE, arrays), tmp_path / "b.safetensors"
    dst.write_text("kept")
    message = error_of(WeightsError, convert, src, dst, dtype="float16")
    assert message.startswith(f"{src}: too large for float16: classifier.fc2.bias; use a")
    message = error_of(WeightsError, convert, src, dst, dtype="float8")
    assert message == "dtype: expected one of float16, bfloat16, float32, float64, got float8"
    assert dst.read_text() == "kept"


def test_paths_may_be_strings_and_the_spec_a_preset(write, tmp_path):
    node = spec.preset("maam_digits")
    convert(str(write(node, arrays := arbitrary(node))), f"{tmp_path}/b.pth")
    assert convert(f"{tmp_path}/b.pth", f"{tmp_path}/c.safetensors", "maam_digits") == node
    assert same(tmp_path / "c.safetensors", arrays, node)


@each_format
def test_files_without_a_spec_need_one_and_two_specs_must_agree(file, arrays, tmp_path, suffix):
    if suffix not in (".safetensors", ".pth.tar"):
        remedy = "pass spec (--spec): the name of a preset, or a spec (--spec: its JSON file)"
        assert refused(file) == f"{file}: contains no spec; {remedy}"
        return
    assert converts_to(file, arrays, None)
    other = spec.parse_json(NODE.to_json().replace('"relu"', '"silu"'))
    assert refused(file, node=other) == (
        f"{file}: saved with another spec: agents.0.act1.function is 'relu' in the file and 'silu' in the model; "
        "omit spec (--spec) to use the spec in the file"
    )
    assert convert(file, tmp_path / "out.pth.tar", NODE.replace(name="another")) == NODE
    assert convert(tmp_path / "out.pth.tar", tmp_path / "out.safetensors") == NODE


def test_arguments_that_are_refused(weights, tmp_path):
    to = partial(convert, dst=tmp_path / "out.pth")
    assert "did you mean 'maam_digits'" in error_of(PresetError, to, weights, spec="maam_digit")
    message = "expected a spec or the name of a preset, got an object of type dict"
    assert message in error_of(SpecError, to, weights, spec={"kind": "identity"})
    assert "got an object of type Model; save a model first: save_weights" in error_of(WeightsError, to, NODE)
    with pytest.raises(WeightsError, match=r"m.onnx: this is a file for inference engines, .*; convert the weights"):
        to(tmp_path / "m.onnx")


def test_foreign_safetensors_files(arrays, tmp_path):
    path, out = tmp_path / "in.safetensors", tmp_path / "out.pth"
    save_file(arrays | {"agents.0.bn1.num_batches_tracked": np.array(3)}, path, {"format": "pt"})
    assert "contains no spec; pass spec" in refused(path)
    assert converts_to(path, arrays)
    save_file(arrays | {"classifier.fc2.bias": np.float32([np.nan] * 3)}, path)
    assert "NaN or infinity in classifier.fc2.bias" in refused(path, out, NODE)
    del arrays["agents.weighting.fc.bias"]
    save_file(arrays, path)
    assert refused(path, out, NODE) == f"{path}: does not fit the model; missing: agents.weighting.fc.bias"
    assert not out.exists()


FILE, LONG = "weights.safetensors", "b" * 300 + ".pth"
KNOWN = "expected one of .safetensors, .pth, .pt, .pth.tar, .ckpt"
SAME_FILE = "source and destination are the same file; choose another destination"
PATHS = [
    ("a.bin", "b.pth", f"a.bin: unknown suffix '.bin'; {KNOWN}"),
    ("a.tar", "b.pt", f"a.tar: unknown suffix '.tar'; {KNOWN}"),
    (FILE, "b", f"b: unknown suffix ''; {KNOWN}"),
    (FILE, "b.tar", f"b.tar: unknown suffix '.tar'; {KNOWN}"),
    *((f"a{suffix}", "b.pth", f"a{suffix}: no such file") for suffix in SUFFIXES),
    (LONG, "b.pth", f"{LONG}: File name too long"),
    (FILE, LONG, f"{LONG}: File name too long"),
    ("folder.pth", "b.pt", "folder.pth: expected a file, got a folder"),
    (FILE, "folder.pth", "folder.pth: expected a file, got a folder"),
    (FILE, "none/b.pth", "none/b.pth: the folder {folder}/none does not exist; create it first"),
    (FILE, FILE, f"{FILE}: {SAME_FILE}"),
    (FILE, "link.pt", f"link.pt: {SAME_FILE}"),
]


def test_paths_that_are_refused(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = weights.read_bytes()
    Path("folder.pth").mkdir()
    Path("link.pt").symlink_to(weights)
    for src, dst, message in PATHS:
        assert refused(tmp_path / src, tmp_path / dst) == f"{tmp_path}/{message.format(folder=tmp_path)}"
    assert refused(weights, Path(FILE)) == f"{FILE}: {SAME_FILE}"  # an absolute path and a relative one
    assert weights.read_bytes() == before


@each_format
@pytest.mark.parametrize(
    "content", [b"", b"x", b"garbage" * 100, b"PK\x03\x04" * 50, b"\x80\x02}q\x00.", b"\n\x00" * 9]
)
def test_garbage_is_refused(tmp_path, suffix, content, capfd):
    path = tmp_path / f"in{suffix}"
    path.write_bytes(content)
    assert refused(path, node=NODE).startswith(f"{path}: ")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".pth", ".ckpt"])
def test_files_cut_short_are_refused(file, suffix, capfd):
    content = file.read_bytes()
    reason = "not a PyTorch checkpoint that contains only tensors, or truncated; save model.state_dict() again"
    for length in np.linspace(0, len(content) - 1, 15, dtype=int):
        file.write_bytes(content[:length])
        message = refused(file, node=NODE)
        assert message == f"{file}: {reason}" or suffix == ".ckpt"
    assert not (file.parent / "out.safetensors").exists()
    assert capfd.readouterr() == ("", "")


@each_format
def test_modes_and_bytes_of_the_files(weights, tmp_path, suffix):
    path, contents = tmp_path / f"new{suffix}", set()
    for mask in (0o022, 0o077):
        path.unlink(missing_ok=True)
        before = os.umask(mask)
        try:
            convert(weights, path)
        finally:
            os.umask(before)
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask
        contents.add(path.read_bytes())
    for mode in (0o600, 0o644, 0o640, 0o400, 0o666):  # of a file that is replaced
        path.write_bytes(b"old")
        path.chmod(mode)
        convert(weights, path)
        assert path.stat().st_mode & 0o777 == mode
        contents.add(path.read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize(("suffix", "package"), [(".pth", "torch"), (".ckpt", "mindspore")])
def test_a_missing_framework_is_an_error_before_reading(weights, tmp_path, monkeypatch, suffix, package):
    for name in list(sys.modules):
        if f"{name}.".startswith(f"maam.{package}."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = error_of(MissingFrameworkError, convert, weights, tmp_path / f"out{suffix}")
    assert message.startswith(f"{package} is not installed; run: pip install 'maam[{package}]'")
