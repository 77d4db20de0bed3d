"""`maam bench`."""

import importlib.util
import json

import pytest

from benchmarks.cost import measure
from maam.errors import SpecError


def test_layers(run, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    options = ("--frameworks", "torch", "--cases", "MAAM,SE", "--kinds", "inference fp32", "--batch", "1,2")
    result = run("bench", "layers", *options, "--channels", 8, "--size", 4, "--rounds", 1, "--out", tmp_path / "out")
    assert result.status == 0
    assert "CPU time, batch 1; MAAM, torch inference fp32 = 1" in result.out
    assert "Matrix products" in result.out
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["layers.json", "layers.md", "layers_batch_1.png", "layers_batch_2.png"]
    document = json.loads((tmp_path / "out" / "layers.json").read_text())
    assert set(document) == {"environment", "batch 1", "batch 2"}


def test_kinds_are_written_without_their_commas(run):
    pytest.importorskip("torch")
    options = ("--frameworks", "torch", "--cases", "SE", "--batch", "1", "--channels", 8, "--size", 4, "--rounds", 1)
    out = run("bench", "layers", *options, "--kinds", "inference optimized").out
    assert "inference, optimized" in out
    assert "inference fp32" not in out


def test_pictures_are_asked_for_before_the_work(fails, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "matplotlib" else find_spec(name)
    )
    monkeypatch.setattr("benchmarks.cost.measure", lambda *given, **options: pytest.fail("measured"))
    assert fails("bench", "layers", "--out", "out") == "matplotlib is not installed; run: pip install 'maam[train]'"


def test_refusals(fails, tmp_path):
    pytest.importorskip("torch")
    assert fails("bench", "all") == "expected one of layers, models, growth, got 'all'"
    assert fails("bench", "layers", "--batch", "x") == "--batch: expected sizes from 1 on, comma-separated, got 'x'"
    assert (
        fails("bench", "layers", "--frameworks", "jax") == "--frameworks: expected some of mindspore, torch, got 'jax'"
    )
    assert fails("bench", "layers", "--batch", "\u00b2").startswith("--batch: expected sizes from 1 on")
    assert fails("bench", "growth", "--batch", "3").startswith("--batch: growth is of the layer alone")
    assert "no case 'NOPE'" in fails("bench", "layers", "--frameworks", "torch", "--cases", "NOPE")
    message = fails("bench", "models", "--frameworks", "torch", "--kinds", "inference,foo")
    assert message.startswith("kinds: no kind starts with 'foo'; there are inference fp32; ")
    for option in ("--kinds", "--cases", "--frameworks"):
        assert fails("bench", "models", option, ",") == f"{option}: expected at least one name"
    (tmp_path / "a.json").write_text("[1]")
    assert "--accuracies a.json: expected JSON such as" in fails(
        "bench", "models", "--accuracies", "a.json", "--out", "out"
    )
    assert fails("bench", "models", "--accuracies", "a.json").startswith("--accuracies: it is for the picture, which")
    assert fails("bench", "models", "--size", 9).startswith("--size: the models take images of 32x32; leave it out")
    for arguments in ({"group": "layer"}, {"group": "layers", "frameworks": ["pytorch"]}):
        with pytest.raises(SpecError, match=f"{list(arguments)[-1]}: expected "):
            measure(**arguments)
