"""What a run trains besides presets: the network of a weights file, or of a spec document."""

import json

import pytest

import maam
from maam import spec
from maam.deploy import prune
from maam.errors import MaamError, RecipeError
from maam.spec import draw
from maam.training import Recipe, default_recipe, read_recipe, train
from maam.training.recipe_files import find_network, find_recipe
from maam.weights import read_weights, write_weights


@pytest.fixture
def pruned(done, tmp_path):
    """What is left of a trained network."""
    write_weights(tmp_path / "pruned.safetensors", *prune(*read_weights(done.final), channels=0.25))
    return tmp_path / "pruned.safetensors"


def test_a_pruned_network_is_trained_on(recipe, done, pruned, framework, tmp_path):
    changes = {"epochs": 1, "optimizer.lr": 0.01, "ema_decay": None}
    run = train(str(pruned), recipe.replaced(changes), out=tmp_path / "run", framework=framework)
    assert read_weights(run.final)[0] == read_weights(pruned)[0] != spec.preset("maam_digits")
    before, after = (folder.log.records()[0]["losses"][0] for folder in (done, run))
    assert after < 0.9 * before  # it knows something already
    session = json.loads(run.run.read_text())["sessions"][0]
    assert session["recipe"]["model"] == session["recipe"]["weights"] == str(pruned)
    again = train(str(pruned), recipe.replaced(changes), out=tmp_path / "run", framework=framework, resume=True)
    assert again.final.read_bytes() == run.final.read_bytes()


def test_a_document_is_trained_from_fresh_weights(recipe, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(spec.preset("maam_digits", channels=16).to_json())
    run = train(str(path), recipe.replaced({"epochs": 1}), out=tmp_path / "run")
    assert read_weights(run.final)[0] == spec.preset("maam_digits", channels=16)
    assert json.loads(run.run.read_text())["sessions"][0]["start"] == ""


def test_the_recipe_is_that_of_the_preset_that_the_file_names(pruned):
    assert find_recipe(str(pruned)) == find_recipe("maam_digits") == default_recipe("maam_digits")


def test_a_document_of_no_presets_name(recipe, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(spec.preset("maam_digits").replace(name="mine").to_json())
    with pytest.raises(RecipeError, match=r"no default recipe for .*mine\.json, a network called 'mine'; choose"):
        train(path, out=tmp_path / "run")
    assert train(path, recipe.replaced({"epochs": 1}), out=tmp_path / "run").final.exists()


def test_a_folder_is_no_network(done, tmp_path):
    with pytest.raises(RecipeError, match=r"a folder, and no preset has that name .* of a run name final\.safetensors"):
        train(str(done.path), out=tmp_path / "run")


def test_other_classes(pruned):
    assert find_network(str(pruned), {"num_classes": 7}).num_classes == 7


@pytest.mark.parametrize(
    ("node", "overrides", "message"),
    [
        (spec.preset("maam_digits"), {"channels": 8}, "overrides.channels: the network is that of "),
        (spec.maam(3), {}, "a single layer (sequential); expected a model that ends in logits"),
    ],
)
def test_files_that_are_refused(recipe, tmp_path, node, overrides, message):
    path = tmp_path / "one.safetensors"
    write_weights(path, node, draw(node.parameters(), 0))
    with pytest.raises(MaamError) as caught:
        train(str(path), recipe.replaced({"overrides": overrides}), out=tmp_path / "run")
    assert str(caught.value).removeprefix(f"{path}: ").startswith(message)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "data", "kept"),
    [
        ("cifar10", "imagefolder", "label_smoothing"),
        ("digits", "imagefolder", "optimizer"),
        ("imagenet_maf", "cifar10", "schedule"),
    ],
)
def test_a_recipe_for_other_data(name, data, kept):
    before = read_recipe(name)
    after = before.replaced({"data": data})
    assert (after.augmentation, after.images) == (Recipe().augmentation, Recipe().images) or data == "cifar10"
    assert getattr(after, kept) == getattr(before, kept)
    field = "images.resize" if data == "imagefolder" else "augmentation.padding"
    assert after == before.replaced({field: None if data == "imagefolder" else 4, "data": data})
    other = "augmentation.padding" if data == "imagefolder" else "images.size"
    with pytest.raises(MaamError, match="it does not act on data"):
        before.replaced({other: 2, "data": data})


def test_a_registered_spec_is_a_preset(recipe, tmp_path):
    node = spec.preset("maam_digits", channels=16)
    maam.register_preset(lambda: node, "mine_of_this_test")
    run = train("mine_of_this_test", recipe.replaced({"epochs": 1}), out=tmp_path / "run")
    assert read_weights(run.final)[0] == node
