"""`maam demo`: its files, its output, and its verdict if a backend differs."""

import json

import numpy as np
import pytest

from maam import data, spec
from maam.cli import demo
from maam.weights import read_weights, write_weights

for package in ("torch", "sklearn", "matplotlib"):
    pytest.importorskip(package)
pytestmark = pytest.mark.usefixtures("one_thread")
PICTURES = ("loss.png", "confusion_matrix.png", "parity.png")
STAGES = {"weight exchange", "layers, eval", "layers, train"}
RUNNERS = {"torch", "mindspore graph", "mindspore pynative"}


@pytest.mark.parametrize("epochs", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_demo(tmp_path, monkeypatch, capsys, epochs):
    """The whole demo has 30 epochs."""
    if epochs == 2:
        monkeypatch.setattr(demo, "STAGES", ("exchange", "layers"))
        monkeypatch.setattr(demo, "LEAST_ACCURACY", 0.3)
    folder = tmp_path / "new" / "demo"
    assert demo.run(folder, epochs=epochs)
    for name in PICTURES:
        content = (folder / name).read_bytes()
        assert (content[:8], content[-8:]) == (b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82")
        assert len(content) > 10_000
    node, arrays = read_weights(folder / "maam_digits.safetensors")
    assert node == spec.preset("maam_digits")
    assert all(np.isfinite(array).all() for array in arrays.values())
    report = json.loads((folder / "parity.json").read_text())
    assert (report["passed"], report["title"]) == (True, "maam_digits")
    assert {path.name for path in folder.iterdir()} == {*PICTURES, "maam_digits.safetensors", "parity.json"}
    stages = {row["stage"] for row in report["rows"]}
    assert stages >= STAGES
    if epochs == 30:
        assert {row["verdict"] for row in report["rows"]} == {"pass"}
        assert all(word in " ".join(stages) for word in ("logits", "gradients"))
        assert {row["runner"] for row in report["rows"]} >= RUNNERS
    printed = capsys.readouterr().out
    assert f"epoch {epochs}: test accuracy " in printed
    assert "   the same prediction for every image in" in printed
    assert f"Results in {folder}: loss.png" in printed.replace("\n", "")
    assert "The full one: maam parity" in printed


def answers(wrong=None, absent=None):
    """Return a `_predict` that returns the labels, with one error in the backend `wrong`."""

    def predict(name, weights, images):
        labels = data.digits("test").labels.astype(np.int64)
        labels[100] = (labels[100] + (name == wrong)) % 10
        return None if name == absent else labels

    return predict


@pytest.fixture
def untrained(monkeypatch):
    """Evaluate weights drawn from a seed, without training and parity."""

    def write(weights, *, seed, **others):
        node = spec.preset("maam_digits")
        write_weights(weights, node, spec.draw(node.parameters(), seed))

    changes = {"_train": write, "_compare": lambda *_: True, "LEAST_ACCURACY": 0.0, "_predict": answers()}
    for name, value in changes.items():
        monkeypatch.setattr(demo, name, value)
    return monkeypatch


SAME = "the same prediction for every image in 3 backends"
LOW = {"_predict": lambda name, weights, images: np.zeros(len(images), np.int64), "LEAST_ACCURACY": 0.97}
VERDICTS = {
    "all agree": ({}, SAME),
    **{f"{name} differs": ({"_predict": answers(name)}, f"NOT {SAME}") for name in ("torch", "mindspore", "reference")},
    "parity fails": ({"_compare": lambda *_: False}, SAME),
    "low accuracy": (LOW, "the accuracy is below 97%; train for more epochs (--epochs)"),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_verdict(tmp_path, untrained, capsys, case):
    changes, printed = VERDICTS[case]
    for name, value in changes.items():
        untrained.setattr(demo, name, value)
    assert demo.run(tmp_path) is (case == "all agree")
    assert f"   {printed}" in capsys.readouterr().out


def test_missing_framework(tmp_path, untrained, capsys):
    untrained.setattr(demo, "_predict", answers(absent="mindspore"))
    assert demo.run(tmp_path / "[" / "bold]") is True  # the name of the folder looks like markup
    printed = capsys.readouterr().out
    assert "   MindSpore not installed" in printed
    assert "in 2 backends" in printed
    untrained.undo()
    untrained.setattr(demo, "is_installed", lambda name: False)
    assert demo._predict("mindspore", tmp_path, np.zeros((1, 1, 8, 8), np.float32)) is None


def test_options_and_status(run, monkeypatch):
    calls, verdicts = [], iter([True, False])
    monkeypatch.setattr(demo, "run", lambda out, **options: calls.append((str(out), options)) or next(verdicts))
    assert run("demo").status == 0
    assert run("demo", "--out", "there", "--epochs", 2, "--seed", 7).status == 1  # after a difference
    assert calls == [("runs/demo", {"epochs": 30, "seed": 0}), ("there", {"epochs": 2, "seed": 7})]


@pytest.mark.parametrize(("package", "extra"), [("torch", "torch"), ("sklearn", "train"), ("matplotlib", "train")])
def test_missing_package_is_an_error_before_the_work(fails, monkeypatch, tmp_path, package, extra):
    monkeypatch.setattr("maam.errors.importlib.util.find_spec", lambda name: None if name == package else name)
    assert fails("demo", "--out", "there") == f"{package} is not installed; run: pip install 'maam[{extra}]'"
    assert not (tmp_path / "there").exists()
