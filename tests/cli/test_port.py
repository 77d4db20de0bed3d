"""`maam port`: options, files, verdicts and errors. tests/porting tests the comparisons."""

import json
import sys

import numpy as np
import pytest
from safetensors import safe_open

from tests.cli.conftest import process

torch = pytest.importorskip("torch")
mindspore = pytest.importorskip("mindspore")
pytestmark = pytest.mark.usefixtures("one_thread")

MODELS = """
import torch
from mindspore import nn

def module():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten())

def cell(last=nn.Flatten, pad_mode="pad", padding=1):
    conv = nn.Conv2d(3, 4, 3, pad_mode=pad_mode, padding=padding, has_bias=True)
    return nn.SequentialCell(conv, nn.ReLU(), last())

def valid():
    return cell(pad_mode="valid", padding=0)

def refusing():
    return cell(lambda: nn.Dense(1, 1))

def broken():
    raise KeyError("no weights here")

class Named(torch.nn.Linear):
    pass

instance = module()
"""
ARGUMENTS = ("--input", "3,6,6", "--steps", "1")
FILES = {"z.py": "1 / 0", "bad.npy": "?", "one.json": "[1]", "deep.json": "[" * 200_000, "two.json": '{"a": 1, "a": 2}'}
FILES["old.ckpt"] = ""
REFUSED = {
    "module z:cell --input 3": "z cannot be imported: ZeroDivisionError: division by zero",
    "module nothing --input 3": "expected package.module:callable",
    "module no_such_module:make --input 3": "no_such_module cannot be imported",
    "module no_such.py:make --input 3": "there is no file no_such.py",
    "module own_models:none --input 3": "own_models has no none; it has module, cell, ",
    "module own_models:broken --input 3": "own_models:broken() failed: KeyError",
    "Named own_models:cell --input 3": "write a function without arguments that returns Named(...)",
    "module own_models:cell": "--input is missing: write the shape of one sample, such as 3,22",
    "module own_models:cell --input 3,x": "--input: expected positive integers",
    "module own_models:cell --input 99999999999999999999,8,8": "--input: expected positive integers",
    "module own_models:cell --input 50000,50000": "--input: expected at most 2,147,483,648 numbers in a batch",
    "module own_models:cell --input no.npy": "--input no.npy: the file does not exist",
    "module own_models:cell --input bad.npy": "--input bad.npy: cannot be read",
    "module own_models:cell --input 3 --out x.pth": "--out x.pth: expected a file name that ends in .ckpt or .safetens",
    "module own_models:cell --input 3 --out old.ckpt": "--out old.ckpt: the file exists",
    "module own_models:cell --input 3 --json r --html ./r": "--html r: --json writes this file too; give each result",
    "module own_models:cell --input 3 --out q.ckpt --json q.ckpt": "--json q.ckpt: --out writes this file too",
    "module own_models.py:cell --input 3 --json own_models.py": "--json own_models.py: the command reads this file",
    "module own_models:cell --input 3 --seed 9999999999999999999": "seed: expected an integer in [0, 2**63)",
    "module own_models:cell --input 3 --out-anyway": "no effect without --out",
    "module own_models:cell --input 3 --names one.json": "expected a JSON object",
    "module own_models:cell --input 3 --names deep.json": "not JSON: ",
    "module own_models:cell --input 3 --names two.json": "the name 'a' occurs twice",
    "module own_models:cell --input 3 --no-transfer --out x.ckpt": "--no-transfer copies no weights",
}


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Write a module with functions that return models; return its name."""
    (tmp_path / "own_models.py").write_text(MODELS)
    monkeypatch.delitem(sys.modules, "own_models", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return "own_models"


def expected():
    return sys.modules["own_models"].module()[0].weight.detach().numpy()


def load_as_advised(result, **names):
    """Run the code that the last line of a command prints."""
    code = result.out.splitlines()[-1].removeprefix("load them with: ")
    eval(code, {"mindspore": mindspore, "torch": torch, **names})


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_agreeing_models(succeeds, models, tmp_path, suffix):
    files = ("--out", f"own{suffix}", "--names-out", "map.json", "--json", "report.json", "--html", "report.html")
    result = succeeds("port", f"{models}.py:module", f"{models}.py:cell", *ARGUMENTS, *files)
    assert "All results that were compared agree." in result.out
    load_as_advised(result, cell=(cell := sys.modules["own_models"].cell()))
    assert np.array_equal(cell[0].weight.asnumpy(), expected())
    assert json.loads((tmp_path / "map.json").read_text()) == {"0": "0"}
    assert json.loads((tmp_path / "report.json").read_text())["passed"] is True
    assert "All results that were compared agree." in (tmp_path / "report.html").read_text()
    again = ("--names", "map.json", "--input", "image.npy", "--steps", "1")
    np.save(tmp_path / "image.npy", np.ones((2, 3, 6, 6), np.float32))
    succeeds("port", f"{models}:instance", f"{models}:cell", *again)


def test_weights_for_pytorch(succeeds, models):
    options = (*ARGUMENTS, "--direction", "mindspore-to-torch", "--out", "own.pth")
    result = succeeds("port", f"{models}:module", f"{models}:cell", *options)
    load_as_advised(result, model=(model := sys.modules["own_models"].module()))
    assert not np.array_equal(model[0].weight.detach().numpy(), expected())


def test_differing_models_write_nothing_unless_asked(run, models, tmp_path):
    command = ("port", f"{models}:module", f"{models}:valid", *ARGUMENTS, "--out", tmp_path / "own.safetensors")
    result = run(*command)
    assert result.status == 1
    assert "FAIL: the first layer that differs is 0" in result.out
    assert 'padding=1 in PyTorch, pad_mode="valid" in MindSpore' in result.out
    assert not (tmp_path / "own.safetensors").exists()
    assert run(*command, "--out-anyway").status == 1
    with safe_open(tmp_path / "own.safetensors", "np") as file:
        assert file.metadata()["maam_port"] == "the models differ, first at 0"
    assert run(*command[:-1], tmp_path / "own.ckpt", "--out-anyway").status == 1
    assert mindspore.load_checkpoint(str(tmp_path / "own.ckpt"))["maam_port"] == "the models differ, first at 0"


@pytest.mark.parametrize(("line", "message"), REFUSED.items(), ids=REFUSED)
def test_refused(fails, models, tmp_path, line, message):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    assert message in fails("port", *f"{models}:{line}".split())


def test_a_cell_that_cannot_run(run, models):
    result = run("port", f"{models}:module", f"{models}:refusing", *ARGUMENTS, "--skip", "2")
    assert result.status == 1
    assert "MindSpore's model cannot run in eval mode: " in result.err


def test_a_file_may_run_operators_when_it_is_imported(tmp_path):
    """MindSpore's first operator fails with NumPy 2 in a process that has not imported maam.mindspore."""
    lines = ("from mindspore import nn", "cell = nn.Dense(1, 1)", "cell.weight.set_data(cell.weight * 0.5)")
    (tmp_path / "own.py").write_text("\n".join(lines))
    code = "from maam.porting import load_factory; print(load_factory('own.py:cell').in_channels)"
    status, out, error = process(sys.executable, "-c", code)
    assert (status, out) == (0, "1\n"), error
