import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from maam import spec
from maam.backend.convert import convert
from maam.errors import MissingFrameworkError

NODE = spec.maam(4)
SUFFIXES = (".safetensors", ".pth", ".pt", ".pth.tar", ".ckpt")
pytest.importorskip("torch")
pytest.importorskip("mindspore")


@pytest.fixture
def weights(write, arbitrary):
    return write(NODE, arbitrary(NODE, "float32"))


@pytest.mark.parametrize(("src", "dst"), [("a.bin", "b.pth"), ("weights.safetensors", "b.onnx"), ("a.tar", "b.pt")])
def test_an_unknown_suffix(weights, tmp_path, src, dst, refused):
    wrong = src if src != weights.name else dst
    assert refused(tmp_path / src, tmp_path / dst) == (
        f"{tmp_path / wrong}: unknown suffix {Path(wrong).suffix!r}; expected one of .safetensors, .pth, .pt, .pth.tar, .ckpt"
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_source(tmp_path, suffix, refused):
    assert refused(tmp_path / f"a{suffix}", tmp_path / "b.pth") == f"{tmp_path}/a{suffix}: no such file"


@pytest.mark.parametrize("names", [("a" * 300 + ".pth", "b.pth"), (None, "b" * 300 + ".pth")])
def test_names_that_are_too_long(weights, tmp_path, names, refused):
    src, dst = (weights if name is None else tmp_path / name for name in names)
    assert refused(src, dst) == f"{dst if names[0] is None else src}: File name too long"


def test_a_folder_as_source_or_destination(weights, tmp_path, refused):
    (tmp_path / "folder.pth").mkdir()
    for src, dst in ((tmp_path / "folder.pth", tmp_path / "b.pt"), (weights, tmp_path / "folder.pth")):
        assert refused(src, dst) == f"{tmp_path}/folder.pth: a folder; give a file"


def test_a_missing_destination_folder(weights, tmp_path, refused):
    path = tmp_path / "none" / "b.pth"
    assert refused(weights, path) == f"{path}: there is no folder {path.parent}; make it first"


def test_one_file_as_source_and_destination(weights, tmp_path, monkeypatch, refused):
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
def test_a_failed_write_leaves_the_old_file_alone(weights, tmp_path, monkeypatch, suffix, failure, refused):
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


def test_no_framework_is_loaded_where_none_is_needed():
    script = "import maam.backend.convert, sys; print({'torch', 'mindspore', 'pandas'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


@pytest.mark.parametrize(("suffix", "package"), [(".pth", "torch"), (".ckpt", "mindspore")])
def test_a_missing_framework_is_named_before_anything_is_read(weights, tmp_path, monkeypatch, suffix, package):
    for name in list(sys.modules):
        if name == f"maam.{package}" or name.startswith(f"maam.{package}."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        MissingFrameworkError, match=rf"^{package} is not installed; run: pip install 'maam\[{package}\]'"
    ):
        convert(weights, tmp_path / f"out{suffix}")
