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
