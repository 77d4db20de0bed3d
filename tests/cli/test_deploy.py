"""`maam fuse`, `maam export`, `maam optimize`, `maam quantize` and `maam prune`."""

import importlib.util
import json
import sys

import numpy as np
import pytest

from maam.cli import deploy, terminal
from maam.deploy import open_exported
from maam.fusion import fuse, is_fusible
from maam.spec import preset
from maam.weights import read_weights
from tests.cli.conftest import process

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


class TestFuse:
    COMPARED = ("--data", "digits", "--frameworks", "torch")

    def test_names_of_pretrained_weights(self, succeeds, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        succeeds("fuse", "maam_net_s", "fused.safetensors")
        assert not is_fusible(read_weights("fused.safetensors")[0])
        succeeds("convert", "maam_net_s", "plain.safetensors")
        assert read_weights("plain.safetensors")[0] == preset("maam_net_s")

    def test_fuse(self, succeeds, fails, digits, tmp_path):
        out = tmp_path / "fused.safetensors"
        lines = succeeds("fuse", digits, out).out.splitlines()
        assert lines[-1].endswith("fused.safetensors: 25 layers, 48,938 parameters")
        assert not is_fusible(read_weights(out)[0])
        before = out.read_bytes()
        assert "nothing to fuse" in fails("fuse", out, out, "--overwrite")
        assert out.read_bytes() == before
        succeeds("fuse", digits, out, "--overwrite")

    @needs_torch
    def test_comparison_on_all_test_images(self, succeeds, digits, monkeypatch):
        monkeypatch.setattr(terminal, "SECONDS", 0.0)
        result = succeeds("fuse", digits, "fused.safetensors", *self.COMPARED)
        assert [row[:3] for row in result.rows] == [["torch", "359", "0"]]
        assert result.err.startswith("torch: 0%")

    @needs_torch
    def test_different_prediction_writes_nothing(self, run, digits, tmp_path, monkeypatch):
        def wrong(spec, arrays):
            node, found = fuse(spec, arrays)
            found["classifier.fc2.bias"][3] += 10
            return node, found

        monkeypatch.setattr(deploy.fusion, "fuse", wrong)
        result = run("fuse", digits, tmp_path / "f.safetensors", *self.COMPARED)
        assert result.status == 1
        assert "the fused form predicts another class for " in result.err
        assert not (tmp_path / "f.safetensors").exists()


@needs_torch
class TestExport:
    def test_export(self, succeeds, digits):
        result = succeeds("export", digits, "--format", "pt2", "--classes", "0,1,2,3,4,5,6,7,8,9", "--mean", "0.3")
        written = digits.with_suffix(".pt2")
        assert result.out.startswith(f"{digits} -> {written}: pt2, largest difference from the model ")
        metadata = open_exported(written)[1]
        assert json.loads(metadata["maam.class_names"]) == list("0123456789")
        assert json.loads(metadata["maam.preprocessing"])["mean"] == [0.3]

    def test_class_names_from_a_file_and_layers_that_are_not_fused(self, succeeds, digits, tmp_path):
        (tmp_path / "names.txt").write_text("\n".join(f"digit {index}" for index in range(10)) + "\n")
        (tmp_path / "m.pt2").write_bytes(b"old")
        succeeds("export", digits, "m.pt2", "--classes", "names.txt", "--overwrite", "--no-fused")
        metadata = open_exported("m.pt2")[1]
        assert json.loads(metadata["maam.class_names"])[3] == "digit 3"
        assert "batch_norm2d" in metadata["maam.spec"]

    def test_wrong_number_of_names(self, fails, digits):
        many = ",".join(f"class {index}" for index in range(100))  # longer than a file's name can be
        assert "expected 10 names" in fails("export", digits, "m.pt2", "--classes", many)


@needs_torch
@pytest.mark.parametrize("engine", ["onnxruntime", pytest.param("torch", marks=pytest.mark.slow)])
def test_optimize(succeeds, digits, engine):
    pytest.importorskip(engine)
    result = succeeds("optimize", digits, "--engine", engine, "--precision", "fp32,int4", "--batch", "2")
    assert [row[:2] for row in result.rows] == [["eager", "fp32"], [engine, "fp32"]]
    assert float(result.rows[0][2]) == 1
    assert float(result.rows[1][2]) > 0
    assert "not measured: precision 'int4': " in result.out


class TestQuantize:
    COMMAND = ("quantize", "digits.safetensors", "q.onnx", "--data", "digits", "--images", "64")

    @pytest.fixture(autouse=True)
    def _installed(self, digits):
        for package in ("torch", "sklearn", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)

    def test_accuracy_size_speed_and_metadata(self, succeeds):
        names = ("--classes", ",".join("abcdefghij"), "--mean", "0.5", "--std", "0.25")
        result = succeeds(*self.COMMAND[:-1], 100, "--max-drop", 100, *names)
        (form, accuracy, *speeds), (other, _, *others) = result.rows
        assert (form, other) == ("float32", "int8")
        assert accuracy.endswith("%")
        assert [float(speed) for speed in speeds] == [1, 1]
        assert all(float(speed) > 0 for speed in others)
        assert " bytes, " in result.out
        metadata = open_exported("q.onnx")[1]
        assert json.loads(metadata["maam.class_names"]) == list("abcdefghij")
        found = json.loads(metadata["maam.preprocessing"])
        assert (found["mean"], found["std"]) == ([0.5], [0.25])

    def test_images_are_normalized(self):
        images = np.array([0.5, 1], np.float32).reshape(1, 2, 1, 1)
        found = deploy._normalize(images, [0.5, 0.5], [1, 0.25])
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.ravel(), [0, 2])

    @pytest.mark.slow
    def test_no_warning_on_standard_error(self):
        pytest.importorskip("openvino")
        pytest.importorskip("nncf")
        command = ["q.xml" if part == "q.onnx" else part for part in self.COMMAND]
        status, _, error = process(sys.executable, "-m", "maam", *command, "--max-drop", "100", CUDA_HOME="/usr")
        assert (status, error) == (0, "")

    def test_too_much_lost(self, run, succeeds, tmp_path, monkeypatch):
        monkeypatch.setattr(deploy, "accuracy", lambda name, *_: {"float32": 0.9, "int8": 0.894}[name])
        result = run(*self.COMMAND)
        assert result.status == 1
        assert "int8 loses 0.60 percentage points of accuracy, more than --max-drop 0.5; nothing was" in result.err
        assert not (tmp_path / "q.onnx").exists()
        succeeds(*self.COMMAND, "--max-drop", 0.7)


def test_prune_channels(succeeds, digits, tmp_path):
    measured = importlib.util.find_spec("torch") and importlib.util.find_spec("sklearn")
    options = ("--data", "digits") if measured else ()
    result = succeeds("prune", digits, tmp_path / "p.safetensors", "--channels", 0.5, *options)
    assert [row[0] for row in result.rows] == (["before", "after"] if measured else [])
    counts, reached = result.out.splitlines()[-2:]
    assert counts.endswith(" MACs")
    assert reached.startswith("--channels 0.5: 88 of 250 channels removed (35 %); 10 are fixed by inputs and outpu")
    assert read_weights(tmp_path / "p.safetensors")[0].at("agents.0.conv1").out_channels == 8
