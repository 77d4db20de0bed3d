"""Runs that start from the weights of another one."""

import json

import numpy as np
import pytest

from maam import spec
from maam.errors import MaamError, TrainingError, WeightsError
from maam.spec import draw
from maam.training import train
from maam.training.checkpoint import read_checkpoint
from maam.weights import read_weights, write_weights


@pytest.fixture
def short(recipe):
    """One epoch at a rate of almost 0: what comes out is what went in."""
    return recipe.replaced({"epochs": 1, "optimizer.lr": 1e-30, "optimizer.weight_decay": 0.0})


@pytest.fixture
def seven(tmp_path):
    """A file of the same network with seven classes, of other weights than seed 0 draws."""
    node = spec.preset("maam_digits", num_classes=7)
    write_weights(tmp_path / "seven.safetensors", node, draw(node.parameters(), 5))
    return tmp_path / "seven.safetensors"


def learnt(arrays):
    """The arrays that only an optimizer moves."""
    return {name: array for name, array in arrays.items() if "running" not in name}


def test_it_starts_from_a_run(short, done, framework, tmp_path):
    run = train("maam_digits", short.replaced({"weights": done.path}), out=tmp_path / "run", framework=framework)
    before, after = (learnt(read_weights(path)[1]) for path in (done.final, run.final))
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-6, atol=1e-12, err_msg=name)  # the average rounds
    first = run.log.records()[0]["losses"][0]
    assert first < 0.8 * np.log(10)  # it knows digits already


def test_a_new_head_where_the_classes_differ(short, seven, framework, tmp_path):
    run = train("maam_digits", short.replaced({"weights": str(seven)}), out=tmp_path / "run", framework=framework)
    node, after = read_weights(run.final)
    assert node == spec.preset("maam_digits")
    drawn, before = draw(node.parameters(), 0), read_weights(seven)[1]
    for name, array in learnt(after).items():
        source = drawn if name.startswith("classifier.fc2.") else before
        np.testing.assert_allclose(array, source[name], rtol=1e-6, atol=1e-12, err_msg=name)
    note = f"the weights are those of {seven}; new is the last layer, classifier.fc2, which the seed draws"
    assert json.loads(run.run.read_text())["sessions"][0]["start"] == note
    assert note in (run.path / "report.md").read_text()


def test_a_resumed_run_has_no_need_of_the_file(recipe, seven, tmp_path, stop):
    recipe = recipe.replaced({"weights": str(seven)})
    steps = {"log_steps": 1, "checkpoint_steps": 4}
    whole = train("maam_digits", recipe, out=tmp_path / "whole", **steps)
    stop("maam_digits", recipe, out=tmp_path / "run", at=9, **steps)
    seven.unlink()
    run = train("maam_digits", recipe, out=tmp_path / "run", resume=True, **steps)
    assert run.final.read_bytes() == whole.final.read_bytes()
    assert read_checkpoint(run.last).recipe.weights == str(seven)
    starts = [session["start"] for session in json.loads(run.run.read_text())["sessions"]]
    assert starts[0] == starts[1] != ""
    with pytest.raises(TrainingError, match="the run has another weights: "):
        train("maam_digits", recipe.replaced({"weights": None}), out=tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"act_layer": "gelu"}, "saved with another spec: .* train the preset that the file was made from"),
        ({}, "one.safetensors: not the weights of a classifier, which maam_digits is"),
        ({"channels": 8}, "saved with another spec: "),
        ({"in_channels": 3}, "saved with another spec: "),
    ],
)
def test_weights_of_another_network(short, tmp_path, options, message):
    node = spec.preset("maam_digits", **options) if options else spec.maam(3)
    path = tmp_path / "one.safetensors"
    write_weights(path, node, draw(node.parameters(), 0))
    with pytest.raises(WeightsError, match=message):
        train("maam_digits", short.replaced({"weights": str(path)}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.safetensors", None, "absent.safetensors: no such file"),
        ("broken.safetensors", b"rubbish", "broken.safetensors: not a safetensors file, or cut short"),
        ("empty_folder", "folder", "empty_folder: this folder holds no run; name a weights file"),
        ("model.pth", b"rubbish", "not a safetensors file, .* convert it with: maam convert SRC DST"),
    ],
)
def test_no_weights(short, tmp_path, name, content, message):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(MaamError, match=message):
        train("maam_digits", short.replaced({"weights": str(path)}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
