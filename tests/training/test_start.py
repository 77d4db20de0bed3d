"""The network and the weights that a run starts from: presets, weights files, spec documents and other runs."""

import json

import numpy as np
import pytest

import maam
from maam import spec
from maam.backend.convert import convert
from maam.deploy import prune
from maam.errors import MaamError, RecipeError, TrainingError, WeightsError
from maam.spec import draw
from maam.training import default_recipe, train
from maam.training.checkpoint import read_checkpoint
from maam.training.recipe_files import find_network, find_recipe
from maam.weights import read_weights, write_weights

slow = pytest.mark.slow
ALSO_SLOW = ["torch", pytest.param("mindspore", marks=slow)]


@pytest.fixture
def frozen(short):
    """One epoch with a learning rate of almost 0, so that the weights stay as they are."""
    return short.replaced({"optimizer.lr": 1e-30, "optimizer.weight_decay": 0.0})


@pytest.fixture
def seven(tmp_path):
    """A weights file of the same network with seven classes, drawn from another seed."""
    node = spec.preset("maam_digits", num_classes=7)
    write_weights(tmp_path / "seven.safetensors", node, draw(node.parameters(), 5))
    return tmp_path / "seven.safetensors"


def learnt(arrays):
    """Return the arrays that only an optimizer changes."""
    return {name: array for name, array in arrays.items() if "running" not in name}


def test_start_from_a_run(frozen, done, framework, tmp_path):
    run = train("maam_digits", frozen.replaced({"weights": done.path}), out=tmp_path / "run", framework=framework)
    before, after = (learnt(read_weights(path)[1]) for path in (done.final, run.final))
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-6, atol=1e-12, err_msg=name)  # the average rounds
    first = run.log.records()[0]["losses"][0]
    assert first < 0.8 * np.log(10)  # an untrained network has a loss of log(10)


@pytest.mark.parametrize("framework", ALSO_SLOW)
def test_new_last_layer_for_other_classes(frozen, seven, framework, tmp_path):
    run = train("maam_digits", frozen.replaced({"weights": str(seven)}), out=tmp_path / "run", framework=framework)
    node, after = read_weights(run.final)
    assert node == spec.preset("maam_digits")
    drawn, before = draw(node.parameters(), 0), read_weights(seven)[1]
    for name, array in learnt(after).items():
        source = drawn if name.startswith("classifier.fc2.") else before
        np.testing.assert_allclose(array, source[name], rtol=1e-6, atol=1e-12, err_msg=name)
    note = f"initial weights: {seven}; the last layer, classifier.fc2, is new and drawn from the seed"
    assert json.loads(run.run.read_text())["sessions"][0]["start"] == note
    assert note in (run.path / "report.md").read_text()


def test_resumed_run_does_not_need_the_file(recipe, seven, tmp_path, stop):
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
    with pytest.raises(TrainingError, match="weights: this run was started with "):
        train("maam_digits", recipe.replaced({"weights": None}), out=tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"act_layer": "gelu"}, "saved with another spec: .* train the preset that the file was made from"),
        ({}, "one.safetensors: maam_digits needs the weights of a classifier: "),
        ({"channels": 8}, "saved with another spec: "),
        ({"in_channels": 3}, "saved with another spec: "),
    ],
)
def test_weights_of_another_network(frozen, tmp_path, options, message):
    node = spec.preset("maam_digits", **options) if options else spec.maam(3)
    path = tmp_path / "one.safetensors"
    write_weights(path, node, draw(node.parameters(), 0))
    with pytest.raises(WeightsError, match=message):
        train("maam_digits", frozen.replaced({"weights": str(path)}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.safetensors", None, "absent.safetensors: no such file"),
        ("broken.safetensors", b"rubbish", "broken.safetensors: not a safetensors file, or truncated"),
        ("empty_folder", "folder", "empty_folder: this folder contains no run; expected a weights file"),
        ("model.pth", b"rubbish", "not a safetensors file, .* convert it with: maam convert SRC DST"),
    ],
)
def test_no_weights(frozen, tmp_path, name, content, message):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(MaamError, match=message):
        train("maam_digits", frozen.replaced({"weights": str(path)}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("framework", ALSO_SLOW)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_start_from_half_precision(framework, short, dtype, tmp_path):
    """A file of half precision equals a float32 file with the same numbers."""
    pytest.importorskip(framework)
    node = spec.preset("maam_digits")
    write_weights(tmp_path / "drawn.safetensors", node, draw(node.parameters(), 5))
    convert(tmp_path / "drawn.safetensors", tmp_path / "half.safetensors", dtype=dtype)
    convert(tmp_path / "half.safetensors", tmp_path / "wide.safetensors", dtype="float32")
    runs = []
    for name in ("half", "wide"):
        changed = short.replaced({"weights": f"{name}.safetensors", "precision": "fp32"})
        runs.append(train("maam_digits", changed, out=tmp_path / name, framework=framework))
    assert runs[0].final.read_bytes() == runs[1].final.read_bytes()


@pytest.fixture
def pruned(done, tmp_path):
    """A weights file of a trained and pruned network."""
    write_weights(tmp_path / "pruned.safetensors", *prune(*read_weights(done.final), channels=0.25))
    return tmp_path / "pruned.safetensors"


@pytest.mark.parametrize("framework", ALSO_SLOW)
def test_pruned_network_is_trained(short, done, pruned, framework, tmp_path):
    pytest.importorskip(framework)
    changes = {"optimizer.lr": 0.01, "ema_decay": None}
    run = train(str(pruned), short.replaced(changes), out=tmp_path / "run", framework=framework)
    assert read_weights(run.final)[0] == read_weights(pruned)[0] != spec.preset("maam_digits")
    before, after = (folder.log.records()[0]["losses"][0] for folder in (done, run))
    assert after < 0.9 * before  # it is already trained
    session = json.loads(run.run.read_text())["sessions"][0]
    assert session["recipe"]["model"] == session["recipe"]["weights"] == str(pruned)
    again = train(str(pruned), short.replaced(changes), out=tmp_path / "run", framework=framework, resume=True)
    assert again.final.read_bytes() == run.final.read_bytes()


def test_spec_document_is_trained_from_drawn_weights(short, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(spec.preset("maam_digits", channels=16).to_json())
    run = train(str(path), short, out=tmp_path / "run")
    assert read_weights(run.final)[0] == spec.preset("maam_digits", channels=16)
    assert json.loads(run.run.read_text())["sessions"][0]["start"] == ""


def test_recipe_of_a_file_is_that_of_its_preset(pruned):
    assert find_recipe(str(pruned)) == find_recipe("maam_digits") == default_recipe("maam_digits")


def test_document_with_an_unknown_name(short, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(spec.preset("maam_digits").replace(name="mine").to_json())
    with pytest.raises(RecipeError, match=r"no default recipe for .*mine\.json, a network called 'mine'; choose"):
        train(path, out=tmp_path / "run")
    assert train(path, short, out=tmp_path / "run").final.exists()


def test_folder_is_not_a_network(done, tmp_path):
    with pytest.raises(
        RecipeError, match=r"this is a folder, and no preset has that name .* of a run, give its final\.safetensors"
    ):
        train(str(done.path), out=tmp_path / "run")


def test_other_classes(pruned):
    assert find_network(str(pruned), {"num_classes": 7}).num_classes == 7


@pytest.mark.parametrize(
    ("node", "overrides", "message"),
    [
        (spec.preset("maam_digits"), {"channels": 8}, "overrides.channels: the file "),
        (spec.maam(3), {}, "a single layer (sequential); expected a model that ends in logits"),
    ],
)
def test_unusable_files(recipe, tmp_path, node, overrides, message):
    path = tmp_path / "one.safetensors"
    write_weights(path, node, draw(node.parameters(), 0))
    with pytest.raises(MaamError) as caught:
        train(str(path), recipe.replaced({"overrides": overrides}), out=tmp_path / "run")
    assert str(caught.value).removeprefix(f"{path}: ").startswith(message)
    assert not (tmp_path / "run").exists()


def test_registered_spec_is_a_preset(short, tmp_path):
    node = spec.preset("maam_digits", channels=16)
    maam.register_preset(lambda: node, "mine_of_this_test")
    run = train("mine_of_this_test", short, out=tmp_path / "run")
    assert read_weights(run.final)[0] == node
