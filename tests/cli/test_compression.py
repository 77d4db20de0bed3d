"""`maam quantize` and `maam prune`."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import maam
from maam.cli import deploy
from maam.deploy import open_exported
from maam.reference import build, save_weights
from maam.weights import read_weights

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def rows(text):
    return [line.replace("│", " ").split() for line in text.splitlines() if line.startswith("│")]


class TestQuantize:
    @pytest.fixture(autouse=True)
    def _installed(self):
        for package in ("torch", "sklearn", "onnxscript", "onnxruntime"):
            pytest.importorskip(package)

    def test_accuracy_size_and_speed(self, run, digits, tmp_path):
        out = tmp_path / "q.onnx"
        result = run("quantize", digits, out, "--data", "digits", "--images", 100, "--max-drop", 100)
        assert result.status == 0
        (form, accuracy, *speeds), (other, _, *others) = rows(result.out)
        assert (form, other) == ("float32", "int8")
        assert accuracy.endswith("%")
        assert [float(speed) for speed in speeds] == [1, 1]
        assert all(float(speed) > 0 for speed in others)
        assert " bytes, " in result.out
        assert out.exists()

    def test_metadata(self, run, digits, tmp_path):
        out = tmp_path / "q.onnx"
        names = ("--classes", ",".join("abcdefghij"), "--mean", "0.5", "--std", "0.25")
        result = run("quantize", digits, out, "--data", "digits", "--images", 64, "--max-drop", 100, *names)
        assert result.status == 0
        metadata = open_exported(out)[1]
        assert json.loads(metadata["maam.class_names"]) == list("abcdefghij")
        found = json.loads(metadata["maam.preprocessing"])
        assert (found["mean"], found["std"]) == ([0.5], [0.25])

    def test_images_are_normalised(self):
        images = np.array([0.5, 1], np.float32).reshape(1, 2, 1, 1)
        found = deploy._normalised(images, [0.5, 0.5], [1, 0.25])
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.ravel(), [0, 2])

    def test_no_warning_of_torch(self, digits, tmp_path):
        pytest.importorskip("openvino")
        pytest.importorskip("nncf")
        command = [sys.executable, "-m", "maam", "quantize", digits, tmp_path / "q.xml", "--data", "digits"]
        environment = {**os.environ, "CUDA_HOME": "/usr"}
        options = {"capture_output": True, "text": True, "check": False, "env": environment}
        found = subprocess.run([*command, "--images", "64", "--max-drop", "100"], **options)
        assert (found.returncode, found.stderr) == (0, "")

    def test_too_much_lost(self, run, digits, tmp_path, monkeypatch):
        monkeypatch.setattr(deploy, "compare", lambda *_: {"float32": 0.9, "int8": 0.894})
        result = run("quantize", digits, tmp_path / "q.onnx", "--data", "digits", "--images", 64)
        assert result.status == 1
        assert "int8 loses 0.60 points of accuracy, allowed are 0.5: nothing was written" in result.err
        assert not (tmp_path / "q.onnx").exists()
        assert (
            run("quantize", digits, tmp_path / "q.onnx", "--data", "digits", "--images", 64, "--max-drop", 0.7).status
            == 0
        )

    def test_refusals(self, run, fails, digits):
        options = ("--data", "digits", "--images")
        assert fails("quantize", digits, "q.onnx", *options, 9999).startswith("--images 9999: digits has ")
        few = run("quantize", digits, "q.onnx", *options, 63)
        assert few.status == 2
        assert "Invalid value for '--images'" in few.err
        assert "no such file" in fails("quantize", "none.safetensors", "q.onnx", *options, 64)
        assert fails("quantize", digits, "q.onnx", *options, 64, "--std", "0").startswith("std: expected positive")
        assert fails("quantize", digits, "q.onnx", *options, 64, "--mean", "1,2").startswith(
            "mean: expected a list of 1 number"
        )


class TestPrune:
    def test_channels(self, run, digits, tmp_path):
        options = (
            ["--data", "digits"] if importlib.util.find_spec("torch") and importlib.util.find_spec("sklearn") else []
        )
        result = run("prune", digits, tmp_path / "p.safetensors", "--channels", 0.5, *options)
        assert result.status == 0
        if options:
            assert [row[0] for row in rows(result.out)] == ["before", "after"]
        assert result.out.splitlines()[-1].endswith(" MACs")
        assert read_weights(tmp_path / "p.safetensors")[0].at("agents.0.conv1").out_channels == 8

    def test_refusals(self, fails, digits, tmp_path):
        out = tmp_path / "p.safetensors"
        assert fails("prune", digits, out).startswith("nothing to prune with min_weight 0.0 and channels 0.0")
        assert fails("prune", digits, out, "--channels", 2) == "channels: expected a number in [0, 1), got 2.0"
        save_weights(build(maam.spec.maam(1, 8), seed=0), "layer.safetensors")
        message = fails("prune", "layer.safetensors", out, "--channels", 0.5, "--data", "digits")
        assert message.startswith("--data shows accuracies, which a model of maps (8, 8, 8) has not")
        assert not out.exists()
        assert "name the data set" in fails("prune", digits, out, "--channels", 0.5, "--root", tmp_path)
        assert "exists" in fails("prune", digits, digits, "--channels", 0.5)
        assert not out.exists()
