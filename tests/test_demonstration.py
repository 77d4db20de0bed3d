"""The demo: what it writes, and that it says so where a room disagrees."""

import functools
import json

import numpy as np
import pytest

from maam import data, parity, spec
from maam.cli import demo
from maam.errors import MissingFrameworkError
from maam.weights import read_weights, write_weights

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

PICTURES = ("loss.png", "confusion_matrix.png", "parity.png")


@pytest.fixture(autouse=True)
def _one_thread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MindSpore leaves folders where it works
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def check_results(folder):
    for name in PICTURES:
        content = (folder / name).read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert content.endswith(b"IEND\xaeB`\x82")
        assert len(content) > 10_000
    node, arrays = read_weights(folder / "maam_digits.safetensors")
    assert node == spec.preset("maam_digits")
    assert all(np.isfinite(array).all() for array in arrays.values())
    report = json.loads((folder / "parity.json").read_text())
    assert (report["passed"], report["title"]) == (True, "maam_digits")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*PICTURES, "maam_digits.safetensors", "parity.json"]
    )
    return report


def test_a_short_one(tmp_path, monkeypatch, capsys):
    short = functools.partial(parity.check, stages=["exchange", "layers"], compiled=False)
    monkeypatch.setattr(demo, "check", short)
    monkeypatch.setattr(demo, "LEAST_ACCURACY", 0.3)
    assert demo.run(tmp_path / "new" / "demo", epochs=2)
    report = check_results(tmp_path / "new" / "demo")
    assert {row["stage"] for row in report["rows"]} >= {"weight exchange", "layers, eval", "layers, train"}
    printed = capsys.readouterr().out
    assert "epoch 2: test accuracy " in printed
    assert "the same prediction on every image in" in printed
    assert f"Results in {tmp_path / 'new' / 'demo'}: loss.png" in printed.replace("\n", "")


@pytest.fixture
def untrained(monkeypatch):
    """The second part alone: weights from a seed, no training, no parity."""

    def write(weights, *, seed, **others):
        node = spec.preset("maam_digits")
        write_weights(weights, node, spec.draw(node.parameters(), seed))

    monkeypatch.setattr(demo, "_train", write)
    monkeypatch.setattr(demo, "_prove", lambda *arguments: True)
    monkeypatch.setattr(demo, "LEAST_ACCURACY", 0.0)
    return monkeypatch


def answers(wrong, absent=()):
    """A `_predict` that knows the labels, but for one image in the room `wrong`."""

    def predict(room, weights, images):
        labels = data.digits("test").labels.astype(np.int64)
        if room == wrong:
            labels[100] = (labels[100] + 1) % 10
        return None if room in absent else labels

    return predict


@pytest.mark.parametrize("wrong", ["torch", "mindspore", "reference", "none"])
def test_one_wrong_prediction_in_one_room(tmp_path, untrained, capsys, wrong):
    untrained.setattr(demo, "_predict", answers(wrong))
    assert demo.run(tmp_path) is (wrong == "none")
    said = "the same" if wrong == "none" else "NOT the same"
    assert f"   {said} prediction on every image in 3 rooms" in capsys.readouterr().out


def test_failed_parity(tmp_path, untrained):
    untrained.setattr(demo, "_predict", answers("none"))
    untrained.setattr(demo, "_prove", lambda *arguments: False)
    assert demo.run(tmp_path) is False


def test_a_low_accuracy_is_said(tmp_path, untrained, capsys):
    untrained.setattr(demo, "LEAST_ACCURACY", 0.97)
    assert demo.run(tmp_path) is False
    assert "the accuracy is below 97%; train for more epochs" in capsys.readouterr().out


def test_a_missing_framework_is_said(tmp_path, untrained, capsys):
    untrained.setattr(demo, "_predict", answers("none", absent=("mindspore",)))
    assert demo.run(tmp_path) is True
    printed = capsys.readouterr().out
    assert "   MindSpore not installed" in printed
    assert "in 2 rooms" in printed


def test_predictions_of_a_room_that_is_not_installed(monkeypatch, tmp_path):
    def refuse(name):
        raise MissingFrameworkError(name)

    monkeypatch.setattr(demo.importlib, "import_module", refuse)
    assert demo._predict("mindspore", tmp_path, np.zeros((1, 1, 8, 8), np.float32)) is None


def test_a_folder_whose_name_looks_like_markup(tmp_path, untrained):
    untrained.setattr(demo, "_predict", answers("none"))
    assert demo.run(tmp_path / "[" / "bold]") is True


@pytest.mark.slow
def test_all_of_it(tmp_path):
    assert demo.run(tmp_path / "out")
    report = check_results(tmp_path / "out")
    assert "NOT RUN" not in {row["verdict"] for row in report["rows"]}
    runners = {row["runner"] for row in report["rows"]}
    assert {"torch", "torch compiled", "mindspore graph", "mindspore pynative"} <= runners
