"""`maam convert` and `maam data`; what they call has its own tests."""

import hashlib
import tarfile
from dataclasses import replace

import numpy as np
import pytest

from maam import spec
from maam.data import archives, cifar, cifar10
from maam.weights import read_weights


@pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ".ckpt"])
def test_convert_there_and_back(run, digits, tmp_path, suffix):
    pytest.importorskip("mindspore" if suffix == ".ckpt" else "torch")
    there, back = tmp_path / f"there{suffix}", tmp_path / "back.safetensors"
    assert run("convert", digits, there) == (0, f"{digits} -> {there}\n", "")
    assert run("convert", there, back, "--spec", "maam_digits").status == 0
    node, arrays = read_weights(back)
    assert node == spec.preset("maam_digits")
    expected = read_weights(digits)[1]
    assert {name: array.tobytes() for name, array in arrays.items()} == {
        name: array.tobytes() for name, array in expected.items()
    }


def test_convert_to_half_precision(run, fails, digits, tmp_path):
    assert run("convert", digits, tmp_path / "half.safetensors", "--dtype", "float16").status == 0
    assert {array.dtype for array in read_weights(tmp_path / "half.safetensors")[1].values()} == {np.dtype(np.float16)}
    message = fails("convert", digits, tmp_path / "other.safetensors", "--dtype", "half")
    assert message == "dtype: expected one of float16, bfloat16, float32, float64, got half"


def test_convert_takes_a_spec_document(run, layer, document, tmp_path):
    pytest.importorskip("torch")
    run("convert", layer, tmp_path / "layer.pt")
    result = run("convert", tmp_path / "layer.pt", tmp_path / "out.safetensors", "--spec", document(spec.maam(3)))
    assert result.status == 0
    assert read_weights(tmp_path / "out.safetensors")[0] == spec.maam(3)


def test_convert_refuses(fails, digits, layer, tmp_path):
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "folder.safetensors").mkdir()
    expected = {
        ("missing.safetensors", "x.safetensors"): "missing.safetensors: no such file",
        ("digits.safetensors", "x.foo"): "x.foo: unknown suffix '.foo'; expected one of",
        ("digits.safetensors", "."): ".: unknown suffix ''; expected one of",
        ("digits.safetensors", "none/x.safetensors"): "none/x.safetensors: there is no folder none",
        ("digits.safetensors", "digits.safetensors"): "digits.safetensors: source and destination are one file",
        ("folder.safetensors", "x.safetensors"): "folder.safetensors: a folder; give a file",
        ("digits.safetensors", "folder.safetensors"): "folder.safetensors: a folder; give a file",
        ("empty.safetensors", "x.safetensors"): "empty.safetensors: not a safetensors file, or cut short",
        ("digits.safetensors", "x.safetensors", "--spec", "nope"): "no preset 'nope'; `maam list` shows",
        ("digits.safetensors", "x.safetensors", "--spec", "none.json"): "none.json: cannot be read",
        ("layer.safetensors", "x.safetensors", "--spec", "maam_digits"): "layer.safetensors: saved with another spec",
    }
    for arguments, message in expected.items():
        assert fails("convert", *arguments).startswith(message)
    assert not (tmp_path / "x.safetensors").exists()


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A CIFAR-10 of one record a file, in place of the official archive."""
    layout = replace(cifar.LAYOUTS["cifar10"], records={"train": 1, "test": 1})
    monkeypatch.setitem(cifar.LAYOUTS, "cifar10", layout)
    source = tmp_path / "source" / layout.binary_folder
    source.mkdir(parents=True)
    for label, file in enumerate([*layout.files["train"], *layout.files["test"]]):
        (source / f"{file}.bin").write_bytes(bytes([label]) + bytes(range(256)) * 12)
    (source / "batches.meta.txt").write_text("\n".join("abcdefghij"))
    packed = tmp_path / "archive.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        tar.add(source, arcname=source.name)
    md5 = hashlib.md5(packed.read_bytes()).hexdigest()
    monkeypatch.setitem(archives.ARCHIVES, "cifar10", archives.Archive(packed.as_uri(), md5))
    return packed


def test_data(run, published, tmp_path):
    folder = tmp_path / "sets" / "cifar-10-batches-bin"
    result = run("data", "cifar10", tmp_path / "sets")
    assert (result.status, result.out) == (0, f"{folder}: ready\n")
    assert result.err.splitlines()[-1] == "cifar10: 100 %"
    np.testing.assert_array_equal(cifar10(tmp_path / "sets", "test").labels, [5])
    published.unlink()
    assert run("data", "cifar10", tmp_path / "sets") == (0, f"{folder}: ready\n", "")


def test_data_refuses(fails, published, tmp_path):
    assert fails("data", "mnist", "sets") == "name is 'mnist'; expected 'cifar10' or 'cifar100'"
    (tmp_path / "file").touch()
    assert fails("data", "cifar10", "file").startswith("file: cannot store cifar10 (")
    published.unlink()
    assert "cannot be downloaded" in fails("data", "cifar10", "sets")
