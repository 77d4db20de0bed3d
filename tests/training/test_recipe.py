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
STEPS, EPOCH, PEAK = 120, 10, 0.4
FILES, NO_EFFECT = {"data": "imagefolder"}, "this has no effect with data imagefolder"
LIMITS = {"epochs": (0, "greater than or equal to 1"), "batch_size": (0, "greater than or equal to 1")}
LIMITS |= {"clip_norm": (0.0, "greater than 0"), "batch_norm_momentum": (0.0, "greater than 0")}
LIMITS |= {"ema_decay": (1.0, "less than 1"), "label_smoothing": (1.0, "less than 1")}
LIMITS |= {"schedule.gamma": (10.0, "less than or equal to 1"), "optimizer.lr": (-1.0, "greater than 0")}
LIMITS |= {"optimizer.eps": (1e39, "less than or equal to 1000000")}
LIMITS |= {"optimizer.weight_decay": (1e7, "less than or equal to 1000000")}
MISSPELT = {"epoch": "epochs", "learning_rate": "optimizer.lr", "augmentation.pading": "padding"}
MISSPELT |= {"optimizer.learning_rat": "lr", "optimizer.wd": "weight_decay", "optimizer.momentu": "momentum"}
MISSPELT_OVERRIDES = {"optimiser.lr": "optimizer.lr", "optimizer.sgd.lr": "optimizer.lr", "lr": "optimizer.lr"}
MISSPELT_OVERRIDES |= {"wieght_decay": "optimizer.weight_decay", "epochs.count": "epochs", "optimizer.lrr": "lr"}
READ = {"epochs=3": 3, "optimizer.lr = 1e-3": 1e-3, "optimizer.momentum=.9": 0.9, "model=2d": "2d"}
READ |= {"optimizer.nesterov=true": True, "optimizer.betas=[0.9, 0.99]": [0.9, 0.99]}
READ |= dict.fromkeys(("data=digits", 'data="digits"'), "digits")


@pytest.mark.parametrize("name", list_recipes())
def test_recipes_of_the_package(name):
    recipe = read_recipe(name)
    assert recipe.model in spec.list_presets()
    spec.preset(recipe.model, **recipe.overrides)
    for pattern in recipe.presets:
        # or a function of maam.spec, by whose name its own networks are called
        assert spec.list_presets(pattern) or pattern in spec.__all__ or spec.preset(pattern.replace("*", "1"))


def test_each_preset_has_one_default_recipe():
    patterns = [pattern for name in list_recipes() for pattern in read_recipe(name).presets]
    owned = [preset for pattern in patterns for preset in spec.list_presets(pattern)]
    assert sorted(owned) == sorted(spec.list_presets())
    assert all(default_recipe(name).epochs > 1 for name in owned)


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


def fields_of(path, value):
    section, _, field = path.rpartition(".")
    return {section: {field: value}} if section else {field: value}


DECAYING = {"optimizer": {"weight_decay": 1e5, "lr_factors": {"bias": 1e-3}}}


def test_wrong_fields():
    for path, (value, limit) in LIMITS.items():
        message = f"recipe: {path}: input should be {limit}, got {value}"
        assert error_of(RecipeError, Recipe, **fields_of(path, value)) == message
    for path, meant in MISSPELT.items():
        message = f"recipe: {path}: no such field; did you mean '{meant}'?"
        assert error_of(RecipeError, Recipe, **fields_of(path, 1)) == message
    for fields, message in [
        ({"ema_decay": 0.9, "lookahead": {"steps": 5}}, "ema_decay: this cannot be combined with lookahead"),
        ({"lookahead": {"decay": 0.5}}, "lookahead.decay: no effect without steps; set lookahead.steps, or remove it"),
        ({"mixup": 1, "batch_size": 1}, "mixup: no effect on batches of one image; increase batch_size, or remove it"),
        ({"freeze": "classifier.*"}, 'freeze: expected a list, such as ["a", "b"], got \'classifier.*\''),
        ({"optimizer": {"lr_factors": {"bn": 2.0}}}, "optimizer.lr_factors.bn: input should be 'weight', 'bias'"),
        ({"optimizer": {"lr_factors": 2}}, "optimizer.lr_factors: expected a table, such as {name = 1}, got 2"),
        ({"schedule": {"end": 0.1}}, "schedule.end: only for triangular; it has no effect for one_cycle"),
        ({"schedule": {"step_epochs": 5}}, "schedule.step_epochs: only for step"),
        ({"schedule": {"name": "step", "warmup": 0.1}}, "schedule.warmup: only for one_cycle or cosine"),
        ({"optimizer": {"name": "adam", "nesterov": True}}, "optimizer.nesterov: only for sgd"),
        ({"optimizer": {"name": "adamw", "momentum": 0.5}}, "optimizer.momentum: only for sgd"),
        ({"optimizer": {"betas": (0.8, 0.9)}}, "optimizer.betas: only for adam or adamw"),
        ({"optimizer": {"lr_factors": {"bias": 0.0}}}, "optimizer.lr_factors.bias: input should be greater than or eq"),
        (DECAYING, "optimizer.weight_decay: expected at most 1e+06 times lr_factors.bias, 0.001"),
        ({"optimizer": {"lr": 1e39}}, "optimizer.lr: expected at most 1e+30, so that a step fits float32"),
        ({"optimizer": {"weight_decay": True}}, "optimizer.weight_decay: input should be a valid number"),
        ({"optimizer": {"foo": 1}}, "optimizer.foo: no such field; expected one of: name, lr"),
        ({"optimizer": 3}, "optimizer: input should be a valid dictionary or instance of Optimizer, got 3"),
        ({"epochs": "many"}, "epochs: input should be a valid integer, got 'many'"),
        ({"overrides": {"act": object()}}, "overrides: act: expected a value that JSON can represent, got"),
        ({"schedule": {"name": "linear"}}, "schedule.name: input should be 'one_cycle', 'cosine', 'triangular'"),
        ({"precision": "fp8"}, "precision: input should be 'auto', 'fp32', 'bf16' or 'fp16', got 'fp8'"),
        ({"data": "mnist"}, "data: input should be 'cifar10'"),
        ({"images": {"size": 64}}, "images: this has no effect with data cifar10; use augmentation"),
        ({**FILES, "validation": 10}, f"validation: {NO_EFFECT}, which is measured on its folder val"),
        ({**FILES, "augmentation": {"padding": 2}}, f"augmentation: {NO_EFFECT}"),
        ({**FILES, "images": {"size": 224, "resize": 200}}, "images: resize is 200; expected at least"),
        ({**FILES, "images": {"scale": (0, 1)}}, "images: scale is (0.0, 1.0); expected 0 < least"),
        ({**FILES, "images": {"std": (1, 0, 1)}}, "images.std.1: input should be greater than 0"),
        ({**FILES, "images": {"sizes": 3}}, "images.sizes: no such field; did you mean 'size'?"),
    ]:
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
    random, central = Recipe(**FILES).images.framings(224)
    assert (random.size, central.size, central.resize) == (224, 224, 256)
    assert Recipe(**FILES).images.framings(32)[1].resize == 37
    small = Recipe(**FILES, images={"resize": 32}).images  # the size of a small model
    assert [crop.size for crop in small.framings(32)] == [32, 32]


def test_recipe_files(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('data = "digits"\nepochs = 3\n[optimizer]\nname = "adamw"\nlr = 0.001\n', "utf-8-sig")
    expected = Recipe(data="digits", epochs=3, optimizer={"name": "adamw", "lr": 0.001})
    assert read_recipe(path) == read_recipe(str(path)) == expected
    for content, reason in {
        b"epochs = ": "not valid TOML",
        b"\xff\xfe": "it is not UTF-8 text",
        b"epochs = 1.5": "recipe: epochs: input should be a valid integer",
        b"[[optimizer]]": "recipe: optimizer: input should be a valid dictionary",
    }.items():
        path.write_bytes(content)
        found = error_of(RecipeError, read_recipe, str(path))
        assert found.startswith(f"{path}: ")
        assert reason in found


def test_overrides():
    before = read_recipe("cifar10")
    recipe = before.replaced(dict([parse_override("optimizer.lr=0.05"), parse_override("data=cifar100")]))
    assert (recipe.optimizer.lr, recipe.data) == (0.05, "cifar100")
    assert recipe.optimizer == Optimizer(**{**before.optimizer.model_dump(), "lr": 0.05})
    assert recipe.replaced({"overrides.num_classes": 100}).overrides == {"num_classes": 100}
    changed = before.replaced({"overrides": {"num_classes": 5}, "overrides.name": "x"})  # an option called name
    assert changed.overrides == {"num_classes": 5, "name": "x"}


def test_reading_an_override():
    for text, value in READ.items():
        assert parse_override(text) == (text.partition("=")[0].strip(), value)
    for text in ("", "epochs", "=3", " =3"):
        assert "expected FIELD=VALUE, such as optimizer" in error_of(RecipeError, parse_override, text)


def test_wrong_overrides():
    replaced = read_recipe("cifar10").replaced
    for path, meant in {**MISSPELT_OVERRIDES, "name": "optimizer.name' or 'schedule.name"}.items():
        message = f"recipe: {path}: no such field; did you mean '{meant}'?"
        assert error_of(RecipeError, replaced, {path: 1}) == message
    choices = {"optimizer.name": ("sdg", "sgd"), "schedule.name": ("cosin", "cosine"), "data": ("cifar", "cifar10")}
    for path, (wrong, meant) in choices.items():
        message = f"recipe: {path}: .*, got '{wrong}'; did you mean '{meant}'\\?"
        assert re.fullmatch(message, error_of(RecipeError, replaced, {path: wrong}))
    assert re.fullmatch("recipe: precision: .*, got 'int8'", error_of(RecipeError, replaced, {"precision": "int8"}))


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


def test_recipe_for_other_data():
    for name, data, kept, field, value, other in [
        ("cifar10", "imagefolder", "label_smoothing", "images.resize", None, "augmentation.padding"),
        ("digits", "imagefolder", "optimizer", "images.resize", None, "augmentation.padding"),
        ("imagenet_maf", "cifar10", "schedule", "augmentation.padding", 4, "images.size"),
    ]:
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


def test_a_recipe_extends_another(tmp_path):
    (tmp_path / "base.toml").write_text(
        'extends = "cifar10"\npresets = ["mine"]\n[optimizer]\nname = "adamw"\nlr = 0.01\n'
    )
    (tmp_path / "mine.toml").write_text('extends = "base.toml"\nepochs = 3\n[augmentation]\ncutout = 2\n')
    found, cifar10 = read_recipe(tmp_path / "mine.toml"), read_recipe("cifar10")
    changes = {"optimizer.name": "adamw", "optimizer.lr": 0.01, "augmentation.cutout": 2}
    assert found == cifar10.replaced(changes, presets=(), epochs=3)
    assert found.augmentation.padding == cifar10.augmentation.padding != 0


@pytest.mark.parametrize(
    ("text", "message"),
    {
        'extends = "mine.toml"': "extends: .*mine.toml: this recipe extends itself",
        'extends = "other.toml"': "extends: .*other.toml: extends: .*mine.toml: this recipe extends itself",
        "extends = 3": "extends: expected the name of a recipe or a .toml file, got 3",
        'extends = "maam_nett"': "extends: no recipe 'maam_nett', .*; did you mean 'maam_net'[?]",
        'extends = "none.toml"': "extends: .*none.toml: cannot be read: No such file or directory",
        'extends = "digits"\nepoch = 3': "recipe: epoch: no such field; did you mean 'epochs'[?]",
        'extends = "digits"\n[optimiser]': "recipe: optimiser: no such field; did you mean 'optimizer'[?]",
    }.items(),
)
def test_wrong_extends(tmp_path, text, message):
    (tmp_path / "mine.toml").write_text(text)
    (tmp_path / "other.toml").write_text('extends = "mine.toml"')
    found = error_of(RecipeError, read_recipe, tmp_path / "mine.toml")
    assert re.fullmatch(f".*mine.toml: {message}", found)


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


def test_cosine_triangular_step_and_constant():
    cosine = lr_scheduler.CosineAnnealingLR
    expected = theirs(lambda o: cosine(o, STEPS))
    assert ours(name="cosine", warmup=0.0) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    warm = theirs(lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=30))[:30]
    rest = theirs(lambda o: cosine(o, 90))[:90]
    assert ours(name="cosine", warmup=0.25, start=0.1) == pytest.approx(warm + rest, abs=1e-12)
    up = theirs(lambda o: lr_scheduler.LinearLR(o, 0.2, total_iters=30))[:30]
    down = theirs(lambda o: lr_scheduler.LinearLR(o, 1.0, 0.07, total_iters=90))[:90]
    assert ours(name="triangular", warmup=0.25, start=0.2, end=0.07) == pytest.approx(up + down)
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


@pytest.mark.parametrize("name", ["one_cycle", "cosine", "triangular"])
@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_ends(name, warmup):
    found = ours(name=name, warmup=warmup)
    assert all(0 <= rate <= PEAK for rate in found)
    assert (found[0] == PEAK) == (warmup == 0)
