"""Recipes: fields, files, overrides, and the messages of mistakes."""

import json

import numpy as np
import pytest

from maam import spec
from maam.data import CenterCrop
from maam.errors import MaamError, PresetError, RecipeError
from maam.training import Optimizer, Recipe, default_recipe, list_recipes, read_recipe, recipe_files
from maam.training.recipe_files import parse_override


@pytest.mark.parametrize("name", list_recipes())
def test_recipes_of_the_package(name):
    recipe = read_recipe(name)
    assert recipe.model in spec.list_presets()
    spec.preset(recipe.model, **recipe.overrides)
    for pattern in recipe.presets:
        assert spec.list_presets(pattern) or spec.preset(pattern.replace("*", "1"))


@pytest.mark.parametrize("name", spec.list_presets())
def test_each_preset_has_one_default_recipe(name):
    assert default_recipe(name).epochs > 1
    owners = [r for r in list_recipes() if any(name in spec.list_presets(p) for p in read_recipe(r).presets)]
    assert len(owners) == 1


def test_recipe_of_the_paper():
    """Section 4.2: batches of 64, padding by 4, random crop, horizontal flip, and nothing else."""
    recipe = read_recipe("paper")
    assert (recipe.batch_size, recipe.data) == (64, "cifar10")
    assert recipe.augmentation.model_dump() == {"padding": 4, "flip_probability": 0.5, "cutout": 0}


def test_recipe_round_trips_through_json():
    recipe = read_recipe("cifar10").replaced({"optimizer.name": "adamw", "optimizer.nesterov": False})
    assert Recipe(**json.loads(recipe.model_dump_json())) == recipe


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epoch": 3}, "recipe: epoch: no such field; did you mean 'epochs'?"),
        ({"epochs": 0}, "recipe: epochs: input should be greater than or equal to 1, got 0"),
        ({"epochs": "many"}, "recipe: epochs: input should be a valid integer, got 'many'"),
        ({"batch_size": 0}, "recipe: batch_size: input should be greater than or equal to 1, got 0"),
        ({"optimizer": {"learning_rat": 1}}, "recipe: optimizer: learning_rat: no such field; did you mean 'lr'?"),
        ({"optimizer": {"wd": 1}}, "recipe: optimizer: wd: no such field; did you mean 'weight_decay'?"),
        ({"optimizer": {"foo": 1}}, "recipe: optimizer: foo: no such field; expected one of: name, lr"),
        ({"learning_rate": 1}, "recipe: learning_rate: no such field; did you mean 'optimizer.lr'?"),
        ({"optimizer": {"lr": -1.0}}, "recipe: optimizer: lr: input should be greater than 0, got -1.0"),
        ({"optimizer": {"lr": 1e39}}, "recipe: optimizer: lr: expected at most 1e+30, so that a step fits float32"),
        ({"optimizer": {"weight_decay": 1e7}}, "recipe: optimizer: weight_decay: input should be less than or equal"),
        ({"optimizer": {"eps": 1e39}}, "recipe: optimizer: eps: input should be less than or equal to 1000000"),
        ({"optimizer": {"momentu": 0.5}}, "recipe: optimizer: momentu: no such field; did you mean 'momentum'?"),
        ({"optimizer": {"name": "adam", "nesterov": True}}, "recipe: optimizer: nesterov: only for sgd"),
        ({"optimizer": {"name": "adamw", "momentum": 0.5}}, "recipe: optimizer: momentum: only for sgd"),
        ({"optimizer": {"betas": (0.8, 0.9)}}, "recipe: optimizer: betas: only for adam or adamw"),
        ({"optimizer": {"weight_decay": True}}, "recipe: optimizer: weight_decay: input should be a valid number"),
        ({"schedule": {"step_epochs": 5}}, "recipe: schedule: step_epochs: only for step"),
        ({"schedule": {"name": "step", "warmup": 0.1}}, "recipe: schedule: warmup: only for one_cycle or cosine"),
        (
            {"overrides": {"act_layer": object()}},
            "recipe: overrides: act_layer: expected a value that JSON can hold, got",
        ),
        ({"optimizer": 3}, "recipe: optimizer: input should be a valid dictionary or instance of Optimizer, got 3"),
        ({"augmentation": {"pading": 4}}, "recipe: augmentation.pading: no such field; did you mean 'padding'?"),
        ({"schedule": {"name": "linear"}}, "recipe: schedule.name: input should be 'one_cycle', 'cosine', 'step'"),
        ({"schedule": {"gamma": 10.0}}, "recipe: schedule.gamma: input should be less than or equal to 1, got 10"),
        ({"precision": "fp8"}, "recipe: precision: input should be 'auto', 'fp32', 'bf16' or 'fp16', got 'fp8'"),
        ({"ema_decay": 1.0}, "recipe: ema_decay: input should be less than 1, got 1.0"),
        ({"data": "mnist"}, "recipe: data: input should be 'cifar10'"),
        ({"label_smoothing": 1.0}, "recipe: label_smoothing: input should be less than 1"),
        ({"clip_norm": 0.0}, "recipe: clip_norm: input should be greater than 0, got 0.0"),
    ],
)
def test_wrong_fields(fields, message):
    with pytest.raises(RecipeError) as caught:
        Recipe(**fields)
    assert str(caught.value).startswith(message)


def test_new_name_drops_the_settings_of_the_old_one():
    recipe = read_recipe("cifar10").replaced({"schedule.warmup": 0.1})
    changed = recipe.replaced({"optimizer.betas": [0.8, 0.9], "optimizer.name": "adamw", "schedule.name": "step"})
    assert changed.optimizer.settings == {"betas": (0.8, 0.9), "eps": 1e-8}
    assert changed.optimizer.weight_decay == recipe.optimizer.weight_decay
    assert (changed.schedule.name, changed.schedule.gamma) == ("step", 0.1)
    for wrong in ({"optimizer.momentum": 0.5, "optimizer.name": "adamw"}, {"optimizer.name": [1]}):
        with pytest.raises(RecipeError):
            recipe.replaced(wrong)


def test_option_called_name():
    changed = read_recipe("cifar10").replaced({"overrides": {"num_classes": 5}, "overrides.name": "x"})
    assert changed.overrides == {"num_classes": 5, "name": "x"}


def test_options_of_presets_have_the_types_of_json():
    recipe = Recipe(overrides={"pool": (1, 2), "num_classes": np.int64(7), "reduce": np.True_})
    assert recipe.overrides == {"pool": [1, 2], "num_classes": 7, "reduce": True}
    assert Recipe(**json.loads(recipe.model_dump_json())) == recipe


@pytest.mark.parametrize("size", [160, 320])
def test_crop_follows_the_size(size):
    images = read_recipe("imagenet_maf").replaced({"images.size": size}).images
    assert images.framings(224)[1] == CenterCrop(size, round(size * 8 / 7))
    assert read_recipe("imagenet_maf").images.framings(224)[1] == CenterCrop(224, 256)


def test_paths_and_byte_order_marks(tmp_path):
    (tmp_path / "mine.toml").write_text("epochs = 3", "utf-8-sig")
    assert read_recipe(tmp_path / "mine.toml").epochs == 3


def test_overrides():
    recipe = read_recipe("cifar10").replaced(
        dict([parse_override("optimizer.lr=0.05"), parse_override("data=cifar100")])
    )
    assert (recipe.optimizer.lr, recipe.data) == (0.05, "cifar100")
    assert recipe.optimizer == Optimizer(**{**read_recipe("cifar10").optimizer.model_dump(), "lr": 0.05})
    assert recipe.replaced({"overrides.num_classes": 100}).overrides == {"num_classes": 100}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epochs=3", ("epochs", 3)),
        ("optimizer.lr = 1e-3", ("optimizer.lr", 1e-3)),
        ("optimizer.momentum=.9", ("optimizer.momentum", 0.9)),
        ("model=2d", ("model", "2d")),
        ("optimizer.nesterov=true", ("optimizer.nesterov", True)),
        ("optimizer.betas=[0.9, 0.99]", ("optimizer.betas", [0.9, 0.99])),
        ("data=digits", ("data", "digits")),
        ('data="digits"', ("data", "digits")),
    ],
)
def test_reading_an_override(text, expected):
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["", "epochs", "=3", " =3"])
def test_text_without_an_override(text):
    with pytest.raises(RecipeError, match="expected FIELD=VALUE, such as optimizer"):
        parse_override(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimiser.lr": 0.1}, "recipe: optimiser.lr: no such field; did you mean 'optimizer.lr'?"),
        ({"optimizer.sgd.lr": 1}, "recipe: optimizer.sgd.lr: no such field; did you mean 'optimizer.lr'?"),
        ({"lr": 1}, "recipe: lr: no such field; did you mean 'optimizer.lr'?"),
        ({"name": "sgd"}, "recipe: name: no such field; did you mean 'optimizer.name' or 'schedule.name'?"),
        ({"wieght_decay": 1}, "recipe: wieght_decay: no such field; did you mean 'optimizer.weight_decay'?"),
        ({"epochs.count": 1}, "recipe: epochs.count: no such field"),
        ({"optimizer.lrr": 1}, "recipe: optimizer: lrr: no such field"),
    ],
)
def test_wrong_overrides(changes, message):
    with pytest.raises(RecipeError) as caught:
        read_recipe("cifar10").replaced(changes)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("field", "value", "meant"),
    [
        ("optimizer.name", "sdg", "; did you mean 'sgd'?"),
        ("schedule.name", "cosin", "; did you mean 'cosine'?"),
        ("data", "cifar", "; did you mean 'cifar10'?"),
        ("precision", "int8", "got 'int8'"),
    ],
)
def test_wrong_choices(field, value, meant):
    with pytest.raises(RecipeError) as caught:
        read_recipe("cifar10").replaced({field: value})
    assert str(caught.value).endswith(meant)


def test_recipe_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('model = "maam_digits"\ndata = "digits"\nepochs = 3\n[optimizer]\nname = "adamw"\nlr = 0.001\n')
    recipe = read_recipe(str(path))
    assert (recipe.epochs, recipe.optimizer.name) == (3, "adamw")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"epochs = ", "not valid TOML"),
        (b"\xff\xfe", "it is not UTF-8 text"),
        (b"epochs = 1.5", "recipe: epochs: input should be a valid integer"),
        (b"[[optimizer]]", "recipe: optimizer: input should be a valid dictionary"),
    ],
)
def test_broken_files(tmp_path, content, message):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        read_recipe(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_recipe_of_the_maf_authors():
    recipe = read_recipe("imagenet_maf")
    assert (recipe.model, recipe.data, recipe.epochs, recipe.batch_size) == ("mafc_v1", "imagefolder", 100, 256)
    settings = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4, "decay": "all"}
    assert settings.items() <= recipe.optimizer.model_dump().items()
    assert (recipe.schedule.name, recipe.schedule.step_epochs, recipe.schedule.gamma) == ("step", 30, 0.1)
    random, central = recipe.images.framings(99)
    assert (random.size, random.scale, random.flip_probability) == (224, (0.08, 1.0), 0.5)
    assert (central.size, central.resize) == (224, 256)
    assert recipe.images.mean == (0.485, 0.456, 0.406)
    assert (recipe.label_smoothing, recipe.clip_norm, recipe.ema_decay) == (0.0, None, None)
    presets = ("mafc_v1", "mafc_v3_small", "MAFCV2", "mobilenet_v2", "maam_imagenet")
    assert all(default_recipe(preset) == recipe for preset in presets)


def test_sizes_follow_the_model():
    random, central = Recipe(data="imagefolder").images.framings(224)
    assert (random.size, central.size, central.resize) == (224, 224, 256)
    assert Recipe(data="imagefolder").images.framings(32)[1].resize == 37


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": {"size": 64}}, "images: this has no effect on data cifar10; use augmentation"),
        (
            {"data": "imagefolder", "augmentation": {"padding": 2}},
            "augmentation: this has no effect on data imagefolder",
        ),
        ({"data": "imagefolder", "images": {"size": 224, "resize": 200}}, "images: resize is 200; expected at least"),
        ({"data": "imagefolder", "images": {"scale": (0, 1)}}, "images: scale is (0.0, 1.0); expected 0 < least"),
        ({"data": "imagefolder", "images": {"std": (1, 0, 1)}}, "images.std.1: input should be greater than 0"),
        ({"data": "imagefolder", "images": {"sizes": 3}}, "images.sizes: no such field; did you mean 'size'?"),
    ],
)
def test_contradictions(fields, message):
    with pytest.raises(RecipeError) as caught:
        Recipe(**fields)
    assert str(caught.value).startswith(f"recipe: {message}")


@pytest.mark.parametrize(
    ("name", "data", "kept"),
    [
        ("cifar10", "imagefolder", "label_smoothing"),
        ("digits", "imagefolder", "optimizer"),
        ("imagenet_maf", "cifar10", "schedule"),
    ],
)
def test_recipe_for_other_data(name, data, kept):
    before = read_recipe(name)
    after = before.replaced({"data": data})
    assert (after.augmentation, after.images) == (Recipe().augmentation, Recipe().images) or data == "cifar10"
    assert getattr(after, kept) == getattr(before, kept)
    field = "images.resize" if data == "imagefolder" else "augmentation.padding"
    assert after == before.replaced({field: None if data == "imagefolder" else 4, "data": data})
    other = "augmentation.padding" if data == "imagefolder" else "images.size"
    with pytest.raises(MaamError, match="has no effect on data"):
        before.replaced({other: 2, "data": data})


def test_no_such_recipe(tmp_path):
    with pytest.raises(
        RecipeError, match=r"no recipe 'cifar', and no file that ends in \.toml; did you mean 'cifar10'\?$"
    ):
        read_recipe("cifar")
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        read_recipe(str(tmp_path / "none.toml"))
    with pytest.raises(PresetError, match="no preset 'maam_digit'; did you mean 'maam_digits'"):
        default_recipe("maam_digit")


def test_no_default_recipe(monkeypatch):
    monkeypatch.setattr(recipe_files, "list_recipes", lambda: ["paper"])
    with pytest.raises(
        RecipeError, match=r"no default recipe for 'cnn'; choose one with recipe=.* \(--recipe NAME\): paper"
    ):
        default_recipe("cnn")
