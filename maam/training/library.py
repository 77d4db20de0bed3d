"""Where recipes come from: the package, or a TOML file."""

from __future__ import annotations

import fnmatch
import os
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from maam.errors import RecipeError
from maam.spec import preset_options
from maam.training.recipe import Recipe
from maam.training.section import nearest

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
