"""No file runs code: pickles and programs in every format that is read are refused, or their data is read alone."""

import os
import pickle
import shutil
import zipfile

import numpy as np
import pytest

from maam import export
from maam.backend.convert import convert
from maam.deploy import open_exported
from maam.errors import DeploymentError, MaamError
from maam.reference import build
from tests.errors import error_of

MODEL = build("maam_digits", seed=0, channels=4, hidden_channels=2, hidden_features=8)


class Call:
    """An object whose pickle creates the file `path`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def marker(tmp_path):
    """A path that hostile files create; it must not exist at the end."""
    path = tmp_path / "executed"
    yield path
    assert not path.exists()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A .pt2 file."""
    pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("exported") / "m.pt2"
    export(MODEL, path)
    return path


@pytest.fixture
def rewritten(exported, tmp_path):
    """Copy the .pt2 file; a function returns the new content of each entry, or None to leave it out."""

    def rewrite(change):
        target = tmp_path / "rewritten.pt2"
        with zipfile.ZipFile(exported) as old, zipfile.ZipFile(target, "w") as new:
            for name in old.namelist():
                if (content := change(name, old.read(name))) is not None:
                    new.writestr(name, content)
        return target

    return rewrite


def without_weights(name, content):
    return None if "maam/w" in name else content


def flipped(name, content):
    return content[:-1] + bytes([content[-1] ^ 1]) if "maam/" in name else content


def check_outputs(predict):
    x = np.random.default_rng(0).random((3, 1, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(predict(x), MODEL(x), atol=1e-4, rtol=1e-4)


@pytest.fixture
def no_program(monkeypatch):
    monkeypatch.setattr("torch.export.load", lambda *_, **__: pytest.fail("torch.export.load was called"))


@pytest.mark.usefixtures("no_program")
def test_a_pt2_file_is_read_without_its_program(rewritten, marker):
    hostile = pickle.dumps(Call(marker))

    def change(name, content):
        return content if "maam/" in name or name.endswith(("version", "byteorder")) else hostile

    predict, metadata = open_exported(rewritten(change))
    check_outputs(predict)
    assert metadata["maam.name"] == "maam_digits"
    assert '"range": [0, 1]' in metadata["maam.preprocessing"]


@pytest.mark.usefixtures("no_program")
def test_foreign_and_damaged_pt2_files_are_refused(rewritten, tmp_path):
    with pytest.raises(DeploymentError, match=r"can run any code when they are opened; .* pass trusted=True"):
        open_exported(rewritten(without_weights))
    assert "rewritten.pt2: the file is damaged" in error_of(DeploymentError, open_exported, rewritten(flipped))
    (tmp_path / "text.pt2").write_text("no archive")
    assert "text.pt2: cannot be read as pt2" in error_of(DeploymentError, open_exported, tmp_path / "text.pt2")


def test_a_trusted_pt2_file_runs_its_own_program(exported, rewritten):
    predict, metadata = open_exported(rewritten(without_weights), trusted=True)
    check_outputs(predict)
    assert metadata == open_exported(exported)[1]


def write_hostile(path, marker):
    """Write a file of weights that creates `marker` if it is unpickled carelessly."""
    if path.suffix == ".npz":
        np.savez(path, weight=np.array([Call(marker)], object))
    elif path.suffix in (".pth", ".pt", ".bin", ".tar"):
        pytest.importorskip("torch").save({"state_dict": {"weight": Call(marker)}}, path)
    else:
        path.write_bytes(pickle.dumps({"weight": Call(marker)}))
    return path


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".tar", ".npz", ".ckpt", ".safetensors", ".pkl"])
def test_checkpoints(suffix, marker, tmp_path):
    if suffix == ".ckpt":
        pytest.importorskip("mindspore")
    with pytest.raises(MaamError):
        convert(write_hostile(tmp_path / f"hostile{suffix}", marker), tmp_path / "out.safetensors", "maam_digits")


def test_checkpoints_of_timm(marker, tmp_path):
    timm, path = pytest.importorskip("maam.timm"), write_hostile(tmp_path / "hostile.pth", marker)
    with pytest.raises(MaamError, match="loading it can run code"):
        timm.create_model("resnet10t", num_classes=2, checkpoint_path=path)


@pytest.mark.parametrize("operator", ["PyExecute", "PyInterpret", "Custom"])
def test_operators_of_mindir_that_run_code(operator, marker, tmp_path):
    pytest.importorskip("mindspore")
    path = tmp_path / "hostile.mindir"
    path.write_bytes(b"\x0a\x05REF::" + operator.encode())
    shutil.copy(path, f"{path}.json")
    with pytest.raises(DeploymentError, match=f"the file names the operator {operator}, which can run any code"):
        open_exported(path)
