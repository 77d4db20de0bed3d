"""The settings of a run, from the arguments of `train` and the run to resume; and checks that a run can be resumed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from maam.errors import RecipeError, TrainingError
from maam.spec import Model, Node
from maam.training.checkpoint import Checkpoint
from maam.training.recipe import IMAGE_FOLDER, Recipe
from maam.training.recipe_files import find_recipe, name_model, read_recipe, with_network
from maam.training.run_dir import RunFolder
from maam.training.schedule import learning_rate
from maam.weights.lookup import names_file

PathLike = str | os.PathLike[str]
_MAY_DIFFER = {"presets", "precision"}
"""Fields of a recipe that may change when a run is resumed; another framework can need another precision."""


class Settings(NamedTuple):
    """What `train` trains, and where.

    Attributes:
        recipe: the recipe, with the name of the model.
        out: the folder of the run.
        root: the folder of the data set; None if the data needs none.
        framework: the name of the backend.
    """

    recipe: Recipe
    out: Path
    root: Path | None
    framework: str


def find_settings(
    model: PathLike | None,
    recipe: Recipe | PathLike | None,
    changes: Mapping[str, Any],
    *,
    out: PathLike | None,
    root: PathLike | None,
    framework: str | None,
    resume: bool,
) -> Settings:
    """Return the settings of a run; with `resume`, those that are not given are the ones of the run in `out`.

    Raises:
        RecipeError: there is no model to train or no recipe for it, or a field is wrong.
        TrainingError: neither a model nor a recipe is given, and `out` contains no run to resume.
    """
    named = None if model is None else name_model(model)
    found = _checked_recipe(recipe)
    folder = None if out is None else Path(out)
    if folder is None and (named or found):
        folder = default_folder(name_model(named, found))
    run = RunFolder(folder) if resume and folder is not None else None
    session, before = _last_session(run)
    if found is None and before is not None and named in (None, before.model):
        found = before.replaced(precision="auto")  # the checkpoint has the precision; a framework may not support it
    if found is None and named is None and run is not None:
        raise TrainingError(
            f"{run.path}: there is no run to resume in this folder, because {run.run.name} is missing or broken; give "
            "the folder of a run (--out), or name a model to start a run"
        )
    found = (found or find_recipe(name_model(named))).replaced(changes)
    found = with_network(found, name_model(named, found))
    chosen = root if root is not None else session.get("root")
    return Settings(
        found,
        folder or default_folder(str(found.model)),
        None if chosen is None else Path(chosen),
        framework or str(session.get("framework", "torch")),
    )


def default_folder(model: str) -> Path:
    """Return the default folder of a run: runs/PRESET, or runs/STEM for a file."""
    return Path("runs") / (Path(model).stem if names_file(model) else model)


def _checked_recipe(recipe: Recipe | PathLike | None) -> Recipe | None:
    if isinstance(recipe, (str, os.PathLike)):
        return read_recipe(recipe)
    if recipe is not None and not isinstance(recipe, Recipe):
        raise RecipeError(
            f"recipe: expected a maam.training.Recipe or its name, got an object of type {type(recipe).__name__}; "
            "read one with maam.training.read_recipe(NAME)"
        )
    return recipe


def _last_session(run: RunFolder | None) -> tuple[dict[str, Any], Recipe | None]:
    """Return the description of a run's last session and its recipe; ({}, None) if it is missing or broken."""
    if run is not None:
        with contextlib.suppress(TrainingError):
            return run.sessions()[-1], run.recipe()
    return {}, None


def check_resumable(folder: RunFolder, checkpoint: Checkpoint | None, spec: Node, recipe: Recipe) -> Recipe | None:
    """Check that a resumed run has the model and the recipe that it was started with, or more epochs.

    If the run was stopped before its first checkpoint, its recipe is read from run.json.

    Returns:
        The recipe that the run had before; None for a new run.

    Raises:
        TrainingError: the model or a field of the recipe differs.
    """
    if checkpoint is not None and checkpoint.spec != spec:
        raise TrainingError(
            f"{folder.last}: this is a checkpoint of another model than {recipe.model}; choose another out (--out)"
        )
    before = None if checkpoint is None else checkpoint.recipe
    if checkpoint is None:
        with contextlib.suppress(TrainingError):  # a missing or broken description is replaced
            before = folder.recipe()
    if before is None:
        return None
    then, now = _comparable_fields(before, spec), _comparable_fields(recipe, spec)
    for name in sorted(now):
        longer = name == "epochs" and now[name] > then[name]
        if name not in _MAY_DIFFER and then[name] != now[name] and not longer:
            another = (
                "choose another out (--out)"
                if checkpoint is None
                else f"start a new run from its weights in another folder, with weights={str(folder.path)!r} "
                f"(--weights {folder.path} --out OTHER)"
            )
            same = "more epochs or the same number" if name == "epochs" else "the same recipe"
            raise TrainingError(
                f"{folder.path}: {name}: this run was started with {then[name]}, not {now[name]}; "
                f"resume it with {same}, or {another}"
            )
    return before


def describe_longer(before: Recipe, recipe: Recipe, step: int, steps: int, steps_per_epoch: int) -> str:
    """Describe the effect of more epochs on a resumed run, which continues at `step` of `steps`."""
    if steps < recipe.epochs * steps_per_epoch:
        return f"epochs: {before.epochs} before, {recipe.epochs} now; max_steps still ends the run after {steps} steps"
    schedule, peak = recipe.schedule, recipe.optimizer.lr
    rate = learning_rate(schedule, peak, step, steps, steps_per_epoch)
    return (
        f"epochs: {before.epochs} before, {recipe.epochs} now; the schedule ({schedule.name}) now spans all "
        f"{recipe.epochs} epochs, so the learning rate continues at {rate:.2g}, as at step {step + 1} of a run of "
        f"{recipe.epochs} epochs"
    )


def _comparable_fields(recipe: Recipe, spec: Node) -> dict[str, Any]:
    """Return the fields of a recipe, with the default of `images.resize` filled in."""
    document = recipe.model_dump()
    if isinstance(spec, Model) and recipe.data == IMAGE_FOLDER:
        document["images"]["resize"] = recipe.images.framings(spec.input_shape[1])[1].resize
    return document
