"""The network and the weights that a run starts from: presets, weights files, spec documents and other runs."""

import functools

import numpy as np
import pytest

import maam
from maam import spec
from maam.deploy import prune
from maam.errors import MaamError, RecipeError, TrainingError, WeightsError
from maam.spec import draw
from maam.training import default_recipe, train
from maam.training.checkpoint import read_checkpoint
from maam.training.recipe_files import find_network, find_recipe
from maam.weights import read_weights, write_weights
from tests.training.conftest import stop

digits = functools.partial(spec.preset, "maam_digits")


@pytest.fixture
def frozen(short):
    """One epoch with a learning rate of almost 0, so that the weights stay as they are."""
    return short.replaced({"optimizer.lr": 1e-30, "optimizer.weight_decay": 0.0})


@pytest.fixture
def seven(drawn):
    """A weights file of the same network with seven classes, drawn from another seed."""
    return drawn(digits(num_classes=7), "seven.safetensors", seed=5)


def check_learned(run, expected):
    """Check the final weights of a run, without running statistics."""
    after = read_weights(run.final)[1]
    assert after.keys() == expected.keys()
    for name in (name for name in expected if "running" not in name):
        np.testing.assert_allclose(after[name], expected[name], rtol=1e-6, atol=1e-12, err_msg=name)  # averages round


@pytest.mark.slow_in("mindspore")
def test_start_from_a_run(frozen, done, framework, tmp_path):
    run = train("maam_digits", frozen.replaced({"weights": done.path}), out=tmp_path / "run", framework=framework)
    check_learned(run, read_weights(done.final)[1])
    first = run.log.records()[1]["losses"][0]
    assert first < 0.8 * np.log(10)  # an untrained network has a loss of log(10)


@pytest.mark.slow_in("mindspore")
def test_new_last_layer_for_other_classes(frozen, seven, framework, tmp_path):
    run = train("maam_digits", frozen.replaced({"weights": str(seven)}), out=tmp_path / "run", framework=framework)
    node = read_weights(run.final)[0]
    assert node == digits()
    drawn = draw(node.parameters(), 0)
    new = {name: array for name, array in drawn.items() if name.startswith("classifier.fc2.")}
    check_learned(run, read_weights(seven)[1] | new)
    note = f"initial weights: {seven}; the last layer, classifier.fc2, is new and drawn from the seed"
    assert run.sessions()[0]["start"] == note
    assert note in (run.path / "report.md").read_text()


def test_resumed_run_does_not_need_the_file(recipe, seven, tmp_path):
    recipe = recipe.replaced({"weights": str(seven)})
    whole = train("maam_digits", recipe, out=tmp_path / "whole")
    stop(recipe, tmp_path / "run", at=9)
    seven.unlink()
    run = train("maam_digits", recipe, out=tmp_path / "run", resume=True)
    assert run.final.read_bytes() == whole.final.read_bytes()
    assert read_checkpoint(run.last).recipe.weights == str(seven)
    first, second = run.sessions()
    assert first["start"] == second["start"] != ""
    with pytest.raises(TrainingError, match="weights: this run was started with "):
        train("maam_digits", recipe.replaced({"weights": None}), out=tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (digits(act_layer="gelu"), "saved with another spec: .* train the preset that the file was made from"),
        (digits(channels=8), "saved with another spec: "),
        (digits(in_channels=3), "saved with another spec: "),
        (spec.maam(3), "drawn.safetensors: maam_digits needs the weights of a classifier: "),
    ],
)
def test_weights_of_another_network(frozen, drawn, refuses, node, message):
    refuses(WeightsError, message, "maam_digits", frozen.replaced({"weights": str(drawn(node))}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.safetensors", "absent.safetensors: no such file"),
        ("broken.safetensors", "broken.safetensors: not a safetensors file, or truncated"),
        ("empty_folder", "empty_folder: this folder contains no run; expected a weights file"),
        ("model.pth", "not a safetensors file, .* convert it with: maam convert SRC DST"),
    ],
)
def test_unreadable_weights(frozen, tmp_path, refuses, name, message):
    (tmp_path / "empty_folder").mkdir()
    for broken in ("broken.safetensors", "model.pth"):
        (tmp_path / broken).write_bytes(b"rubbish")
    refuses(MaamError, message, "maam_digits", frozen.replaced({"weights": name}))


@pytest.mark.slow_in("mindspore")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_start_from_half_precision(framework, short, dtype, half_and_wide, tmp_path):
    """A file of half precision equals a float32 file with the same numbers."""
    runs = []
    for path in half_and_wide(digits(), dtype):
        changed = short.replaced({"weights": str(path), "precision": "fp32"})
        runs.append(train("maam_digits", changed, out=tmp_path / path.stem, framework=framework))
    assert runs[0].final.read_bytes() == runs[1].final.read_bytes()


@pytest.mark.slow_in("mindspore")
def test_pruned_network_is_trained(short, done, framework, tmp_path):
    pruned = tmp_path / "pruned.safetensors"
    write_weights(pruned, *prune(*read_weights(done.final), channels=0.25))
    recipe = short.replaced({"optimizer.lr": 0.01, "ema_decay": None})
    run = train(str(pruned), recipe, out=tmp_path / "run", framework=framework)
    assert read_weights(run.final)[0] == read_weights(pruned)[0] != digits()
    before, after = (folder.log.records()[1]["losses"][0] for folder in (done, run))
    assert after < 0.9 * before  # it is already trained
    (session,) = run.sessions()
    assert session["recipe"]["model"] == session["recipe"]["weights"] == str(pruned)
    again = train(str(pruned), recipe, out=tmp_path / "run", framework=framework, resume=True)
    assert again.final.read_bytes() == run.final.read_bytes()
    assert find_recipe(str(pruned)) == find_recipe("maam_digits") == default_recipe("maam_digits")
    assert find_network(str(pruned), {"num_classes": 7}).num_classes == 7


def test_own_spec_is_trained_from_drawn_weights(short, refuses, tmp_path):
    node = digits(channels=16).replace(name="mine")
    (tmp_path / "mine.json").write_text(node.to_json())
    message = r"no default recipe for .*mine\.json, a network called 'mine'; choose"
    refuses(RecipeError, message, tmp_path / "mine.json")
    maam.register_preset(lambda: node, "mine_of_this_test")
    for name in ("mine.json", "mine_of_this_test"):
        run = train(name, short, out=tmp_path / "runs" / name)
        assert read_weights(run.final)[0] == node
        assert run.sessions()[0]["start"] == ""


def test_paths_that_name_no_network(recipe, drawn, done, refuses):
    message = r"this is a folder, and no preset has that name .* of a run, give its final\.safetensors"
    refuses(RecipeError, message, str(done.path))
    path = drawn(digits())
    refuses(RecipeError, f"^overrides.channels: the file {path}", str(path), recipe.replaced({"overrides.channels": 8}))
    path = drawn(spec.maam(3))
    refuses(RecipeError, rf"^{path}: a single layer \(sequential\); expected a model that ends", str(path), recipe)
