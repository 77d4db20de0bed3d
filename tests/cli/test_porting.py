"""`maam port`."""

import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

MODELS = """
import torch
from mindspore import nn

def module():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten())

def cell():
    return nn.SequentialCell(nn.Conv2d(3, 4, 3, pad_mode="pad", padding=1, has_bias=True), nn.ReLU(), nn.Flatten())

def valid():
    return nn.SequentialCell(nn.Conv2d(3, 4, 3, pad_mode="valid", has_bias=True), nn.ReLU(), nn.Flatten())

def broken():
    raise KeyError("no weights here")
"""
ARGUMENTS = ("--input", "3,6,6", "--steps", "1")


@pytest.fixture
def models(tmp_path, monkeypatch):
    """The name of a module with factories, in the working folder."""
    pytest.importorskip("torch")
    pytest.importorskip("mindspore")
    (tmp_path / "own_models.py").write_text(MODELS)
    monkeypatch.delitem(sys.modules, "own_models", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return "own_models"


def test_agreeing_models(run, models, tmp_path):
    out = tmp_path / "own.safetensors"
    result = run("port", f"{models}:module", f"{models}:cell", *ARGUMENTS, "--out", out)
    assert result.status == 0, result
    assert "All that was compared agrees." in result.out
    written = load_file(out)
    assert set(written) == {"0.weight", "0.bias"}
    assert np.array_equal(written["0.weight"], sys.modules["own_models"].module()[0].weight.detach().numpy())


def test_differing_models_write_nothing(run, models, tmp_path):
    result = run("port", f"{models}:module", f"{models}:valid", *ARGUMENTS, "--out", tmp_path / "own.safetensors")
    assert result.status == 1
    assert "FAIL: the first layer that differs is 0" in result.out
    assert not (tmp_path / "own.safetensors").exists()


def test_what_is_not_copied_is_not_written(fails, models):
    assert "--no-transfer: no weights are copied" in fails(
        "port", "ours:module", "ours:cell", "--input", "3", "--no-transfer", "--out", "x.safetensors"
    )


def test_a_module_that_fails_when_it_is_imported(fails, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "fails_at_import.py").write_text("1 / 0")
    message = fails("port", "fails_at_import:module", "fails_at_import:cell", "--input", "3")
    assert "fails_at_import cannot be imported: ZeroDivisionError: division by zero" in message


def test_bad_input(fails, models, tmp_path):
    start = ("port", f"{models}:module")
    assert "expected package.module:callable" in fails(*start, "nothing", *ARGUMENTS)
    assert "no_such_module cannot be imported" in fails(*start, "no_such_module:make", *ARGUMENTS)
    assert fails(*start, f"{models}:none", *ARGUMENTS) == "own_models:none: own_models has no none"
    assert fails(*start, f"{models}:broken", *ARGUMENTS).startswith("own_models:broken() failed: KeyError")
    assert fails(*start, f"{models}:cell", "--input", "3,x").startswith("--input: expected positive integers")
    (tmp_path / "names.json").write_text("[1]")
    named = (*start, f"{models}:cell", *ARGUMENTS, "--names", tmp_path / "names.json")
    assert "expected an object" in fails(*named)
    for text, message in (("[" * 200_000, "no JSON: "), ('{"a": "b", "a": "c"}', "the name 'a' is there twice")):
        (tmp_path / "names.json").write_text(text)
        assert message in fails(*named)
