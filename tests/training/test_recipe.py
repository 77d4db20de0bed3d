"""Recipes: fields, files, overrides, error messages, and schedules compared with those of PyTorch."""

import json
import re

import numpy as np
import pytest

from maam import spec
from maam.data import CenterCrop
from maam.errors import PresetError, RecipeError
from maam.training import Optimizer, Recipe, default_recipe, learning_rate, list_recipes, read_recipe, recipe_files
from maam.training.recipe import Schedule
from maam.training.recipe_files import parse_override
from tests.errors import error_of

torch = pytest.importorskip("torch")
lr_scheduler = torch.optim.lr_scheduler
FOLDER = "imagefolder"
STEPS, EPOCH, PEAK = 120, 10, 0.4


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
    assert recipe.augmentation.model_dump(exclude_defaults=True) == {}
    assert (recipe.augmentation.padding, recipe.augmentation.flip_probability) == (4, 0.5)


def test_recipe_round_trips_through_json():
    recipe = read_recipe("cifar10").replaced({"optimizer.name": "adamw", "optimizer.nesterov": False})
    assert Recipe(**json.loads(recipe.model_dump_json())) == recipe
    recipe = Recipe(overrides={"pool": (1, 2), "num_classes": np.int64(7), "reduce": np.True_})
    assert recipe.overrides == {"pool": [1, 2], "num_classes": 7, "reduce": True}
    assert Recipe(**json.loads(recipe.model_dump_json())) == recipe


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epoch": 3}, "epoch: no such field; did you mean 'epochs'?"),
        ({"ema_decay": 0.9, "lookahead": {"steps": 5}}, "ema_decay: this cannot be combined with lookahead"),
        ({"schedule": {"end": 0.1}}, "schedule.end: only for triangular; it has no effect for one_cycle"),
        ({"optimizer": {"lr_factors": {"bias": 0.0}}}, "optimizer.lr_factors.bias: input should be greater than 0"),
        ({"batch_norm_momentum": 0.0}, "batch_norm_momentum: input should be greater than 0, got 0.0"),
        ({"epochs": 0}, "epochs: input should be greater than or equal to 1, got 0"),
        ({"epochs": "many"}, "epochs: input should be a valid integer, got 'many'"),
        ({"batch_size": 0}, "batch_size: input should be greater than or equal to 1, got 0"),
        ({"optimizer": {"learning_rat": 1}}, "optimizer.learning_rat: no such field; did you mean 'lr'?"),
        ({"optimizer": {"wd": 1}}, "optimizer.wd: no such field; did you mean 'weight_decay'?"),
        ({"optimizer": {"foo": 1}}, "optimizer.foo: no such field; expected one of: name, lr"),
        ({"learning_rate": 1}, "learning_rate: no such field; did you mean 'optimizer.lr'?"),
        ({"optimizer": {"lr": -1.0}}, "optimizer.lr: input should be greater than 0, got -1.0"),
        ({"optimizer": {"lr": 1e39}}, "optimizer.lr: expected at most 1e+30, so that a step fits float32"),
        ({"optimizer": {"weight_decay": 1e7}}, "optimizer.weight_decay: input should be less than or equal"),
        ({"optimizer": {"eps": 1e39}}, "optimizer.eps: input should be less than or equal to 1000000"),
        ({"optimizer": {"momentu": 0.5}}, "optimizer.momentu: no such field; did you mean 'momentum'?"),
        ({"optimizer": {"name": "adam", "nesterov": True}}, "optimizer.nesterov: only for sgd"),
        ({"optimizer": {"name": "adamw", "momentum": 0.5}}, "optimizer.momentum: only for sgd"),
        ({"optimizer": {"betas": (0.8, 0.9)}}, "optimizer.betas: only for adam or adamw"),
        ({"optimizer": {"weight_decay": True}}, "optimizer.weight_decay: input should be a valid number"),
        ({"schedule": {"step_epochs": 5}}, "schedule.step_epochs: only for step"),
        ({"schedule": {"name": "step", "warmup": 0.1}}, "schedule.warmup: only for one_cycle or cosine"),
        ({"overrides": {"act": object()}}, "overrides: act: expected a value that JSON can represent, got"),
        ({"optimizer": 3}, "optimizer: input should be a valid dictionary or instance of Optimizer, got 3"),
        ({"augmentation": {"pading": 4}}, "augmentation.pading: no such field; did you mean 'padding'?"),
        ({"schedule": {"name": "linear"}}, "schedule.name: input should be 'one_cycle', 'cosine', 'triangular'"),
        ({"schedule": {"gamma": 10.0}}, "schedule.gamma: input should be less than or equal to 1, got 10"),
        ({"precision": "fp8"}, "precision: input should be 'auto', 'fp32', 'bf16' or 'fp16', got 'fp8'"),
        ({"ema_decay": 1.0}, "ema_decay: input should be less than 1, got 1.0"),
        ({"data": "mnist"}, "data: input should be 'cifar10'"),
        ({"label_smoothing": 1.0}, "label_smoothing: input should be less than 1"),
        ({"clip_norm": 0.0}, "clip_norm: input should be greater than 0, got 0.0"),
        ({"images": {"size": 64}}, "images: this has no effect with data cifar10; use augmentation"),
        (
            {"data": FOLDER, "validation": 10},
            f"validation: this has no effect with data {FOLDER}, which is measured on its folder val",
        ),
        ({"data": FOLDER, "augmentation": {"padding": 2}}, f"augmentation: this has no effect with data {FOLDER}"),
        ({"data": FOLDER, "images": {"size": 224, "resize": 200}}, "images: resize is 200; expected at least"),
        ({"data": FOLDER, "images": {"scale": (0, 1)}}, "images: scale is (0.0, 1.0); expected 0 < least"),
        ({"data": FOLDER, "images": {"std": (1, 0, 1)}}, "images.std.1: input should be greater than 0"),
        ({"data": FOLDER, "images": {"sizes": 3}}, "images.sizes: no such field; did you mean 'size'?"),
    ],
)
def test_wrong_fields(fields, message):
    assert error_of(RecipeError, Recipe, **fields).startswith(f"recipe: {message}")


def test_new_name_drops_the_settings_of_the_old_one():
    recipe = read_recipe("cifar10").replaced({"schedule.warmup": 0.1})
    changed = recipe.replaced({"optimizer.betas": [0.8, 0.9], "optimizer.name": "adamw", "schedule.name": "step"})
    assert changed.optimizer.settings == {"betas": (0.8, 0.9), "eps": 1e-8}
    assert changed.optimizer.weight_decay == recipe.optimizer.weight_decay
    assert (changed.schedule.name, changed.schedule.gamma) == ("step", 0.1)
    for wrong in ({"optimizer.momentum": 0.5, "optimizer.name": "adamw"}, {"optimizer.name": [1]}):
        error_of(RecipeError, recipe.replaced, wrong)


def test_sizes_of_crops():
    for size in (160, 320):
        images = read_recipe("imagenet_maf").replaced({"images.size": size}).images
        assert images.framings(224)[1] == CenterCrop(size, round(size * 8 / 7))
    assert read_recipe("imagenet_maf").images.framings(224)[1] == CenterCrop(224, 256)
    random, central = Recipe(data="imagefolder").images.framings(224)
    assert (random.size, central.size, central.resize) == (224, 224, 256)
    assert Recipe(data="imagefolder").images.framings(32)[1].resize == 37


def test_recipe_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('data = "digits"\nepochs = 3\n[optimizer]\nname = "adamw"\nlr = 0.001\n', "utf-8-sig")
    expected = Recipe(data="digits", epochs=3, optimizer={"name": "adamw", "lr": 0.001})
    assert read_recipe(path) == read_recipe(str(path)) == expected


def test_overrides():
    before = read_recipe("cifar10")
    recipe = before.replaced(dict([parse_override("optimizer.lr=0.05"), parse_override("data=cifar100")]))
    assert (recipe.optimizer.lr, recipe.data) == (0.05, "cifar100")
    assert recipe.optimizer == Optimizer(**{**before.optimizer.model_dump(), "lr": 0.05})
    assert recipe.replaced({"overrides.num_classes": 100}).overrides == {"num_classes": 100}
    changed = before.replaced({"overrides": {"num_classes": 5}, "overrides.name": "x"})  # an option called name
    assert changed.overrides == {"num_classes": 5, "name": "x"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("epochs=3", 3),
        ("optimizer.lr = 1e-3", 1e-3),
        ("optimizer.momentum=.9", 0.9),
        ("model=2d", "2d"),
        ("optimizer.nesterov=true", True),
        ("optimizer.betas=[0.9, 0.99]", [0.9, 0.99]),
        ("data=digits", "digits"),
        ('data="digits"', "digits"),
    ],
)
def test_reading_an_override(text, value):
    assert parse_override(text) == (text.partition("=")[0].strip(), value)


@pytest.mark.parametrize("text", ["", "epochs", "=3", " =3"])
def test_text_without_an_override(text):
    assert "expected FIELD=VALUE, such as optimizer" in error_of(RecipeError, parse_override, text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimiser.lr": 0.1}, r"optimiser.lr: no such field; did you mean 'optimizer.lr'\?"),
        ({"optimizer.sgd.lr": 1}, r"optimizer.sgd.lr: no such field; did you mean 'optimizer.lr'\?"),
        ({"lr": 1}, r"lr: no such field; did you mean 'optimizer.lr'\?"),
        ({"name": "sgd"}, r"name: no such field; did you mean 'optimizer.name' or 'schedule.name'\?"),
        ({"wieght_decay": 1}, r"wieght_decay: no such field; did you mean 'optimizer.weight_decay'\?"),
        ({"epochs.count": 1}, r"epochs.count: no such field; did you mean 'epochs'\?"),
        ({"optimizer.lrr": 1}, r"optimizer.lrr: no such field; did you mean 'lr'\?"),
        ({"optimizer.name": "sdg"}, r"optimizer.name: .*; did you mean 'sgd'\?"),
        ({"schedule.name": "cosin"}, r"schedule.name: .*; did you mean 'cosine'\?"),
        ({"data": "cifar"}, r"data: .*; did you mean 'cifar10'\?"),
        ({"precision": "int8"}, r"precision: .*, got 'int8'"),
    ],
)
def test_wrong_overrides(changes, message):
    found = error_of(RecipeError, read_recipe("cifar10").replaced, changes)
    assert re.fullmatch(f"recipe: {message}", found), found


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
    found = error_of(RecipeError, read_recipe, str(path))
    assert found.startswith(f"{path}: ")
    assert message in found


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


@pytest.mark.parametrize(
    ("name", "data", "kept", "field", "value", "other"),
    [
        ("cifar10", FOLDER, "label_smoothing", "images.resize", None, "augmentation.padding"),
        ("digits", FOLDER, "optimizer", "images.resize", None, "augmentation.padding"),
        ("imagenet_maf", "cifar10", "schedule", "augmentation.padding", 4, "images.size"),
    ],
)
def test_recipe_for_other_data(name, data, kept, field, value, other):
    before = read_recipe(name)
    after = before.replaced({"data": data})
    assert (after.augmentation, after.images) == (Recipe().augmentation, Recipe().images) or data == "cifar10"
    assert getattr(after, kept) == getattr(before, kept)
    assert after == before.replaced({field: value, "data": data})
    assert "has no effect with data" in error_of(RecipeError, before.replaced, {other: 2, "data": data})


def test_no_recipe(tmp_path, monkeypatch):
    found = error_of(RecipeError, read_recipe, "cifar")
    assert found == "no recipe 'cifar', and no file that ends in .toml; did you mean 'cifar10'?"
    assert "cannot be read: No such file" in error_of(RecipeError, read_recipe, str(tmp_path / "none.toml"))
    assert "no preset 'maam_digit'; did you mean 'maam_digits'" in error_of(PresetError, default_recipe, "maam_digit")
    monkeypatch.setattr(recipe_files, "list_recipes", lambda: ["paper"])
    found = error_of(RecipeError, default_recipe, "cnn")
    assert re.match(r"no default recipe for 'cnn'; choose one with recipe=.* \(--recipe NAME\): paper", found)


def theirs(make):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK, momentum=0.9)
    scheduler, found = make(optimizer), []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def ours(**fields):
    return [learning_rate(Schedule(**fields), PEAK, step, STEPS, EPOCH) for step in range(STEPS)]


def test_cosine():
    expected = theirs(lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS))
    assert ours(name="cosine", warmup=0.0) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    warm = theirs(lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=30))[:30]
    rest = theirs(lambda o: lr_scheduler.CosineAnnealingLR(o, 90))[:90]
    assert ours(name="cosine", warmup=0.25, start=0.1) == pytest.approx(warm + rest, abs=1e-12)


def test_steps_and_constant():
    expected = theirs(lambda o: lr_scheduler.StepLR(o, 3 * EPOCH, 0.1))
    assert ours(name="step", step_epochs=3) == pytest.approx(expected)
    assert set(ours(name="constant")) == {PEAK}


def test_one_cycle():
    """PyTorch counts to total - 1 and ends slightly above 0; otherwise the curve is the same."""
    found = ours(name="one_cycle", warmup=0.3, start=0.04)
    shape = {"pct_start": 37 / 121, "div_factor": 25, "final_div_factor": 1e9}
    expected = theirs(lambda o: lr_scheduler.OneCycleLR(o, PEAK, STEPS + 1, **shape))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert max(found) == found[36] == pytest.approx(PEAK)


def test_triangular():
    up = theirs(lambda o: lr_scheduler.LinearLR(o, 0.2, total_iters=30))[:30]
    down = theirs(lambda o: lr_scheduler.LinearLR(o, 1.0, 0.07, total_iters=90))[:90]
    assert ours(name="triangular", warmup=0.25, start=0.2, end=0.07) == pytest.approx(up + down)


@pytest.mark.parametrize("name", ["one_cycle", "cosine", "triangular"])
@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_ends(name, warmup):
    found = ours(name=name, warmup=warmup)
    assert all(0 <= rate <= PEAK for rate in found)
    assert (found[0] == PEAK) == (warmup == 0)


def test_images_may_be_resized_to_the_size_of_a_small_model():
    recipe = Recipe(data=FOLDER, images={"resize": 32})
    assert [crop.size for crop in recipe.images.framings(32)] == [32, 32]
