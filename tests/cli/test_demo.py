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


def check_results(folder):
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
    return report


def test_short_demo(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "STAGES", ("exchange", "layers"))
    monkeypatch.setattr(demo, "LEAST_ACCURACY", 0.3)
    assert demo.run(tmp_path / "new" / "demo", epochs=2)
    report = check_results(tmp_path / "new" / "demo")
    assert {row["stage"] for row in report["rows"]} >= {"weight exchange", "layers, eval", "layers, train"}
    printed = capsys.readouterr().out
    assert "epoch 2: test accuracy " in printed
    assert "   the same prediction for every image in" in printed
    assert f"Results in {tmp_path / 'new' / 'demo'}: loss.png" in printed.replace("\n", "")
    assert "The full one: maam parity" in printed


@pytest.mark.slow
def test_whole_demo(tmp_path):
    assert demo.run(tmp_path / "out")
    report = check_results(tmp_path / "out")
    assert {row["verdict"] for row in report["rows"]} == {"pass"}
    stages = " ".join(row["stage"] for row in report["rows"])
    assert all(word in stages for word in ("weight exchange", "layers", "logits", "gradients"))
    assert {"torch", "mindspore graph", "mindspore pynative"} <= {row["runner"] for row in report["rows"]}


@pytest.fixture
def untrained(monkeypatch):
    """Evaluate weights drawn from a seed, without training and parity."""

    def write(weights, *, seed, **others):
        node = spec.preset("maam_digits")
        write_weights(weights, node, spec.draw(node.parameters(), seed))

    monkeypatch.setattr(demo, "_train", write)
    monkeypatch.setattr(demo, "_compare", lambda *arguments: True)
    monkeypatch.setattr(demo, "LEAST_ACCURACY", 0.0)
    monkeypatch.setattr(demo, "_predict", answers())
    return monkeypatch


def answers(wrong=None, absent=()):
    """Return a `_predict` that returns the labels, with one error in the backend `wrong`."""

    def predict(name, weights, images):
        labels = data.digits("test").labels.astype(np.int64)
        if name == wrong:
            labels[100] = (labels[100] + 1) % 10
        return None if name in absent else labels

    return predict


@pytest.mark.parametrize("wrong", [None, "torch", "mindspore", "reference"])
def test_one_different_prediction(tmp_path, untrained, capsys, wrong):
    untrained.setattr(demo, "_predict", answers(wrong))
    assert demo.run(tmp_path) is (wrong is None)
    words = "the same prediction for every image in 3 backends"
    assert f"   {words if wrong is None else f'NOT {words}'}" in capsys.readouterr().out


def test_failed_parity_and_low_accuracy(tmp_path, untrained, capsys):
    with untrained.context() as patch:
        patch.setattr(demo, "_compare", lambda *arguments: False)
        assert demo.run(tmp_path) is False
    untrained.setattr(demo, "_predict", lambda name, weights, images: np.zeros(len(images), np.int64))
    untrained.setattr(demo, "LEAST_ACCURACY", 0.97)
    assert demo.run(tmp_path) is False
    assert "the accuracy is below 97%; train for more epochs (--epochs)" in capsys.readouterr().out


def test_missing_framework(tmp_path, untrained, capsys):
    untrained.setattr(demo, "_predict", answers(absent=("mindspore",)))
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
