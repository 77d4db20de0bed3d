"""The network that a run trains, and the recipe that it has where none is given."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maam.errors import RecipeError
from maam.spec import Model, Node, preset, with_num_classes
from maam.training.library import default_recipe, find_default, no_default
from maam.training.recipe import Recipe
from maam.weights.naming import DOCUMENT, find_spec, names_file


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
