"""Recipe files: reading and listing recipes, the default recipe of a preset, and the network that a recipe names."""

from __future__ import annotations

import fnmatch
import os
import re
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from maam._config import name_hint
from maam._documents import check_brackets, count_objects
from maam._io import read_text
from maam._messages import nearest
from maam.errors import PresetError, RecipeError
from maam.spec import Model, Node, list_presets, preset, preset_options, with_num_classes
from maam.spec.presets import aliases
from maam.training.recipe import Recipe
from maam.weights.lookup import DOCUMENT, find_spec, names_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_FOLDER = files("maam.training") / "recipes"
_MAX_BYTES = 1 << 20
_LONG_KEY = re.compile(r"""(?<![\w-])(?:(?:"[^"\n]*"|'[^'\n]*'|[\w-]+)[ \t]*\.[ \t]*){200}""")
"""A dotted name of more than 200 parts, each of which nests a table; tomllib needs minutes for long ones."""


def list_recipes() -> list[str]:
    """Return the names of the recipes in the package, sorted.

    Example:
        >>> from maam.training import list_recipes
        >>> "cifar10" in list_recipes()
        True
    """
    return sorted(entry.name.removesuffix(".toml") for entry in _FOLDER.iterdir() if entry.name.endswith(".toml"))


def read_recipe(name: str | os.PathLike[str]) -> Recipe:
    """Return a recipe of the package by its name, or the recipe in a file by a path that ends in .toml.

    A file with `extends = "NAME"` or `extends = "FILE.toml"` changes another recipe: it has the fields of that recipe,
    except `presets`, unless it gives its own. Its tables change only the fields that they contain. A relative path
    starts at the folder of the file.

    Raises:
        RecipeError: there is no such recipe or file, the file is not TOML, a field is wrong, or recipes extend each
            other in a circle.

    Example:
        >>> from pathlib import Path
        >>> from maam.training import read_recipe
        >>> read_recipe("digits").model
        'maam_digits'
        >>> _ = Path("mine.toml").write_text('extends = "digits"' + chr(10) + "epochs = 5")
        >>> read_recipe("mine.toml").epochs
        5
    """
    return _read(os.fspath(name), ())


def _read(name: str, seen: tuple[str, ...]) -> Recipe:
    """Return a recipe; `seen` are the names of those that extend it, to find circles."""
    if name.endswith(".toml"):
        source, text, identity = name, _read_text(Path(name)), str(Path(name).resolve())
    elif name in list_recipes():
        source, text, identity = name, (_FOLDER / f"{name}.toml").read_text("utf-8"), name
    else:
        raise RecipeError(f"no recipe {name!r}, and no file that ends in .toml{name_hint(name, list_recipes())}")
    if identity in seen:
        raise RecipeError(f"{source}: this recipe extends itself")
    try:
        fields = _parse_toml(text)
        base = _read_base(fields.pop("extends", None), source, (*seen, identity))
        return Recipe(**fields) if base is None else base.replaced(_paths({"presets": (), **fields}))
    except RecipeError as error:
        raise RecipeError(f"{source}: {error}") from None
    except ValueError as error:  # also for a number of too many digits
        raise RecipeError(f"{source}: not valid TOML: {error}") from None


def _read_base(extends: object, source: str, seen: tuple[str, ...]) -> Recipe | None:
    """Return the recipe that `extends` names; a relative path starts at the folder of the file `source`."""
    if extends is None:
        return None
    if not isinstance(extends, str):
        raise RecipeError(f"extends: expected the name of a recipe or a .toml file, got {extends!r}")
    try:
        return _read(os.path.join(os.path.dirname(source), extends) if extends.endswith(".toml") else extends, seen)
    except RecipeError as error:
        raise RecipeError(f"extends: {error}") from None


def _paths(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of tables by their paths, such as "optimizer.lr", so that tables change only these fields."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict) and value and name != "overrides":
            found |= {f"{name}.{field}": one for field, one in value.items()}
        else:
            found[name] = value
    return found


def _read_text(path: Path) -> str:
    try:
        return read_text(path, _MAX_BYTES)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: cannot be read: it is not UTF-8 text") from None


def _parse_toml(text: str) -> dict[str, Any]:
    """Return the tables of a TOML document; raise `ValueError` if it is broken or nested too deeply."""
    check_brackets(text)
    if _LONG_KEY.search(text):
        raise ValueError("the document is nested too deeply")
    try:
        found = tomllib.loads(text)
    except RecursionError:
        raise ValueError("the document is nested too deeply") from None
    count_objects(found, len(text))  # a dotted name nests without brackets
    return found


def default_recipe(preset: str) -> Recipe:
    """Return the package's recipe for a preset: the one whose `presets` match the name.

    Raises:
        PresetError: there is no such preset.
        RecipeError: there is no recipe for it.

    Example:
        >>> from maam.training import default_recipe
        >>> default_recipe("maam_cifar10_2m3").data
        'cifar10'
    """
    if isinstance(preset, str) and (recipe := _find_default(preset)) is not None:
        return recipe
    preset_options(preset)  # raises for an unknown preset
    raise _no_default(repr(preset))


def find_recipe(model: str) -> Recipe:
    """Return the default recipe of a preset; for a file, that of the preset that its spec names.

    Raises:
        RecipeError: there is no default recipe.
        PresetError, SpecError, WeightsError: there is no such preset or file, or the file is broken.
    """
    if not names_file(model):
        _check_is_preset(model)
        return default_recipe(model)
    spec = find_network(model, {})
    assert isinstance(spec, Model)
    if (recipe := _find_default(spec.name)) is None:
        raise _no_default(f"{model}, a network called {spec.name!r}")
    return recipe


def _find_default(preset: str) -> Recipe | None:
    recipes = map(read_recipe, list_recipes())
    return next((r for r in recipes if any(fnmatch.fnmatchcase(preset, pattern) for pattern in r.presets)), None)


def _no_default(what: str) -> RecipeError:
    return RecipeError(
        f"no default recipe for {what}; choose one with recipe=maam.training.read_recipe(NAME) (--recipe NAME): "
        f"{', '.join(list_recipes())}"
    )


def parse_override(text: str) -> tuple[str, Any]:
    """Return the path and the value of an override such as "optimizer.lr=0.05".

    The value is parsed as TOML. If that fails, it is read as a number such as .5, or kept as a string.

    Raises:
        RecipeError: there is no "=".
    """
    path, sign, value = text.partition("=")
    if not sign or not path.strip():
        raise RecipeError(f"override {text!r}: expected FIELD=VALUE, such as optimizer.lr=0.05")
    try:
        return path.strip(), _parse_toml(f"value = {value}")["value"]
    except ValueError:
        return path.strip(), _number_or_text(value.strip())


def _number_or_text(text: str) -> float | str:
    try:
        return float(text) if any(map(str.isdecimal, text)) else text
    except ValueError:
        return text


def name_model(model: str | os.PathLike[str] | None, recipe: Recipe | None = None) -> str:
    """Return the model's name; that of the recipe if `model` is None.

    Raises:
        RecipeError: there is no name, or `model` is not a name.
    """
    model = os.fspath(model) if isinstance(model, os.PathLike) else model
    if model is not None and not isinstance(model, str):
        raise RecipeError(
            f"model: expected the name of a preset or a file, got an object of type {type(model).__name__}; set a "
            "preset's options in the recipe's `overrides`; to train a spec of your own, write it with "
            "Path('mine.json').write_text(spec.to_json()), or register it with maam.register_preset(factory)"
        )
    name = model or (recipe.model if recipe is not None else None)
    if name is None:
        raise RecipeError("no model to train: name a preset, or a recipe with a `model`")
    return name


def find_network(name: str, overrides: Mapping[str, Any]) -> Node:
    """Return the spec of a preset with `overrides` as options, or of the model in a weights file or spec document.

    Raises:
        PresetError, SpecError, WeightsError: there is no such preset or file, or an option is wrong.
        RecipeError: the file holds a single layer, or `overrides` has more than `num_classes` for a file.
    """
    if not names_file(name):
        _check_is_preset(name)
        return preset(name, **overrides)
    if Path(name).is_dir():
        raise RecipeError(
            f"{name}: this is a folder, and no preset has that name (see `maam list`); "
            "to train the network of a run, give its final.safetensors"
        )
    spec, _ = find_spec(name)
    if not isinstance(spec, Model):
        raise RecipeError(f"{name}: a single layer ({spec.kind}); expected a model that ends in logits")
    if unknown := sorted(set(overrides) - {"num_classes"}):
        raise RecipeError(
            f"overrides.{unknown[0]}: the file {name} determines the network; only num_classes can be changed"
        )
    return with_num_classes(spec, overrides["num_classes"]) if overrides else spec


def _check_is_preset(name: str) -> None:
    if name in list_presets() or name in aliases() or nearest(name, list_presets()):
        return  # `preset` suggests similar names
    raise PresetError(
        f"no preset {name[:60]!r}; `maam list` shows all. maam trains presets, weights files and spec documents; "
        "build a network of timm, torchvision or MindCV with create_model of maam.timm, maam.torchvision or "
        "maam.mindcv, and train it with a loop of your own"
    )


def with_network(recipe: Recipe, name: str) -> Recipe:
    """Return the recipe for the network `name`; if that is a weights file, the run starts from it by default."""
    has_weights = names_file(name) and Path(name).suffix != DOCUMENT and recipe.weights is None
    return recipe.replaced({"model": name, "weights": name if has_weights else recipe.weights})
