"""The network that a run trains, and the recipe that it has where none is given."""

from __future__ import annotations

import fnmatch
import os
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from maam._config import nearest
from maam.errors import RecipeError
from maam.spec import Model, Node, preset, preset_options, with_num_classes
from maam.training.recipe import Recipe
from maam.weights.lookup import DOCUMENT, find_spec, names_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_FOLDER = files("maam.training") / "recipes"


def list_recipes() -> list[str]:
    """The names of the package's recipes, sorted."""
    return sorted(entry.name.removesuffix(".toml") for entry in _FOLDER.iterdir() if entry.name.endswith(".toml"))


def read_recipe(name: str | os.PathLike[str]) -> Recipe:
    """The package's recipe of that name, or the one in the file `name` if that ends in .toml.

    Raises:
        RecipeError: there is no such recipe or file, it is no TOML, or a field is wrong.
    """
    name = os.fspath(name)
    if name.endswith(".toml"):
        return _parse(name, _read(Path(name)))
    if name not in list_recipes():
        raise RecipeError(f"no recipe {name!r}, and no file that ends in .toml{nearest(name, list_recipes())}")
    return _parse(name, (_FOLDER / f"{name}.toml").read_text("utf-8"))


def default_recipe(preset: str) -> Recipe:
    """The package's recipe for a preset: the first whose `presets` match its name.

    Raises:
        RecipeError: there is none.
        PresetError: nor is there such a preset.
    """
    if (recipe := find_default(preset)) is not None:
        return recipe
    preset_options(preset)
    raise no_default(repr(preset))


def no_default(what: str) -> RecipeError:
    """The error where `what` is to be trained, and the package has no recipe for it."""
    return RecipeError(
        f"no default recipe for {what}; choose one with recipe=maam.training.read_recipe(NAME) (--recipe NAME): "
        f"{', '.join(list_recipes())}"
    )


def find_default(preset: str) -> Recipe | None:
    """The package's recipe for presets of that name; None where there is none."""
    recipes = map(read_recipe, list_recipes())
    return next((r for r in recipes if any(fnmatch.fnmatchcase(preset, one) for one in r.presets)), None)


def parse_override(text: str) -> tuple[str, Any]:
    """The path and the value of an override such as "optimizer.lr=0.05"; the value is TOML's, else a number or string.

    Raises:
        RecipeError: it has no "=".
    """
    path, sign, value = text.partition("=")
    if not sign or not path.strip():
        raise RecipeError(f"override {text!r}: expected FIELD=VALUE, such as optimizer.lr=0.05")
    try:
        return path.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return path.strip(), _number(value.strip())


def _number(text: str) -> float | str:
    """A number that TOML writes otherwise, such as .5; else the text."""
    try:
        return float(text) if any(map(str.isdecimal, text)) else text
    except ValueError:
        return text


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: cannot be read: it is no UTF-8 text") from None


def _parse(source: str, text: str) -> Recipe:
    try:
        return Recipe(**tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source}: no valid TOML: {error}") from None
    except RecipeError as error:
        raise RecipeError(f"{source}: {error}") from None


def find_network(name: str, overrides: Mapping[str, Any]) -> Node:
    """A preset with `overrides` as its options; or the model in a weights file or spec document.

    Raises:
        PresetError, SpecError, WeightsError: there is no such preset or file, or an option is wrong.
        RecipeError: the file holds a single layer, or other options than `num_classes` are given for it.
    """
    if not names_file(name):
        return preset(name, **overrides)
    if Path(name).is_dir():
        raise RecipeError(
            f"{name}: a folder, and no preset has that name (`maam list`); of a run name final.safetensors in it"
        )
    spec, _ = find_spec(name)
    if not isinstance(spec, Model):
        raise RecipeError(f"{name}: a single layer ({spec.kind}); expected a model that ends in logits")
    if unknown := sorted(set(overrides) - {"num_classes"}):
        raise RecipeError(f"overrides.{unknown[0]}: the network is that of {name}; only num_classes can be another")
    return with_num_classes(spec, overrides["num_classes"]) if overrides else spec


def find_recipe(name: str) -> Recipe:
    """The default recipe of a preset, or for a file of the preset that its spec names.

    Raises:
        RecipeError: there is none.
        PresetError, SpecError, WeightsError: there is no such preset or file, or the file is broken.
    """
    if not names_file(name):
        return default_recipe(name)
    spec = find_network(name, {})
    assert isinstance(spec, Model)
    if (recipe := find_default(spec.name)) is None:
        raise no_default(f"{name}, a network called {spec.name!r}")
    return recipe


def with_network(recipe: Recipe, name: str) -> Recipe:
    """The recipe for that network; one from a weights file starts from the weights there, if it names no others."""
    trained = names_file(name) and Path(name).suffix != DOCUMENT and recipe.weights is None
    return recipe.replaced({"model": name, "weights": name if trained else recipe.weights})


def name_model(model: str | os.PathLike[str] | None, recipe: Recipe | None = None) -> str:
    """`model`, or what the recipe names.

    Raises:
        RecipeError: neither names one, or `model` is no name.
    """
    model = os.fspath(model) if isinstance(model, os.PathLike) else model
    if model is not None and not isinstance(model, str):
        raise RecipeError(
            f"model: expected the name of a preset or a file, got an object of type {type(model).__name__}; give the "
            "name, and options as the recipe's `overrides`; a spec of your own is a file after "
            "Path('mine.json').write_text(spec.to_json()), a preset after maam.register_preset(factory)"
        )
    name = model or (recipe.model if recipe is not None else None)
    if name is None:
        raise RecipeError("no model to train: name a preset, or a recipe that has a `model`")
    return name
