"""A training run from its recipe to its report."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np

from maam import files
from maam.environment import environment
from maam.errors import DeviceError, RecipeError, TrainingError, require
from maam.spec import Node, preset
from maam.training.checkpoint import Checkpoint, read_checkpoint
from maam.training.folder import RunFolder
from maam.training.image_sources import Reading
from maam.training.library import default_recipe
from maam.training.log import Record
from maam.training.loop import CHECKPOINT_STEPS, LOG_STEPS, Loop, Observer
from maam.training.protocol import Objective
from maam.training.recipe import Precision, Recipe
from maam.training.report import write_report
from maam.training.rooms import find_room
from maam.training.sources import open_source
from maam.training.world import World


class Silent:
    """An observer that says nothing."""

    def start(self, step: int, steps: int) -> None:
        """Say nothing."""

    def steps(self, record: Record) -> None:
        """Say nothing."""

    def epoch(self, record: Record) -> None:
        """Say nothing."""


def train(
    model: str | None = None,
    recipe: Recipe | None = None,
    *,
    out: str | os.PathLike[str],
    root: str | os.PathLike[str] | None = None,
    framework: str = "torch",
    device: str | None = None,
    resume: bool = False,
    num_workers: int = 0,
    on_broken: str = "error",
    observer: Observer | None = None,
    checkpoint_steps: int = CHECKPOINT_STEPS,
    log_steps: int = LOG_STEPS,
) -> RunFolder:
    """Train a preset, write the run to the folder `out`, and return that folder.

    Args:
        model: a preset's name; the recipe's where None.
        recipe: the preset's default recipe where None.
        out: a new or empty folder; with `resume`, that of the run to go on with.
        root: the folder of the data set.
        framework: "torch" or "mindspore". A run may be resumed in the other one.
        device: "cpu", "cuda" or "ascend"; the framework's best where None.
        resume: go on from the last checkpoint in `out`, from the beginning where there is none yet.
        num_workers: processes or threads that decode image files; see `maam.data.ImageBatches`.
        on_broken: what happens where an image file is broken: "error" or "skip".
        observer: is told of every record of the log.
        checkpoint_steps: steps between two checkpoints.
        log_steps: steps between two records of the log.

    Raises:
        MaamError: the recipe, the data, the folder, the device or the framework does not fit, or training diverged.
    """
    recipe = recipe or default_recipe(name_model(model))
    name = name_model(model, recipe)
    spec = preset(name, **recipe.overrides)
    for package in ("sklearn", "matplotlib"):  # for the report: better now than after hours
        require(package, "train")
    room = find_room(framework)
    chosen = room.select_device(device)
    world = room.join_world(chosen)
    recipe = recipe.replaced({"model": name})
    reading = Reading(framework, num_workers, on_broken)
    share = (world.rank, world.size)
    source = open_source(recipe, None if root is None else Path(root), spec, reading, share)
    room.select_precision(chosen, recipe.precision)  # what cannot be had is refused before anything is written
    folder = RunFolder(out)
    checkpoint = _open(folder, resume, world)
    recipe = recipe.replaced({"precision": _precision(room, chosen, recipe, checkpoint, world)})
    if checkpoint is not None:
        _check_same(folder, checkpoint, spec, recipe)
    runner = room.make_runner(spec, seed=recipe.seed, device=chosen)
    trainer = runner.trainer(recipe.optimizer, objective(recipe))
    loop = Loop(
        runner,
        trainer,
        recipe,
        source,
        folder,
        observer if observer is not None and world.rank == 0 else Silent(),
        checkpoint_steps=checkpoint_steps,
        log_steps=log_steps,
        world=world,
    )
    if checkpoint is not None:
        runner.write_arrays(checkpoint.arrays)
        trainer.write_state(checkpoint.state)
        loop.step, loop.best = checkpoint.state.step, checkpoint.best_accuracy
    if world.rank == 0:
        _describe(folder, recipe, framework, chosen)  # first: by run.json a folder is known to hold a run
        folder.log.rewind(loop.step)
    loop.run()
    evaluation = loop.evaluate()
    if world.rank == 0:
        write_report(folder, evaluation, source.class_names)
    return folder


PRECISIONS: tuple[str, ...] = get_args(Precision)


def objective(recipe: Recipe) -> Objective:
    """The part of a recipe that a step needs."""
    return Objective(recipe.label_smoothing, recipe.clip_norm, recipe.ema_decay is not None, recipe.precision)


def name_model(model: str | None, recipe: Recipe | None = None) -> str:
    """`model`, or the preset that the recipe names.

    Raises:
        RecipeError: neither names one.
    """
    name = model or (recipe.model if recipe is not None else None)
    if name is None:
        raise RecipeError("no model to train: name a preset, or a recipe that has a `model`")
    return name


def _open(folder: RunFolder, resume: bool, world: World) -> Checkpoint | None:
    """Open a folder in the first process, then read its checkpoint in all."""
    found = folder.open(resume) if world.rank == 0 else None
    world.barrier()
    if world.rank and resume and folder.last.exists():
        return read_checkpoint(folder.last)
    return found


def _precision(room: Any, device: str, recipe: Recipe, checkpoint: Checkpoint | None, world: World) -> str:
    """What all processes compute in. "auto" is what a resumed run had; in a new one, the first process's choice."""
    if recipe.precision == "auto" and checkpoint is not None:
        with contextlib.suppress(DeviceError):  # another framework or device may not have it
            return room.select_precision(device, checkpoint.recipe.precision)
    chosen = PRECISIONS.index(room.select_precision(device, recipe.precision))
    return PRECISIONS[int(world.gather(np.array([chosen], np.float32))[0])]


MAY_DIFFER = {"presets", "precision"}


def _check_same(folder: RunFolder, checkpoint: Checkpoint, spec: Node, recipe: Recipe) -> None:
    """Refuse to go on with another model or recipe; precision may change, as another framework may need."""
    if checkpoint.spec != spec:
        raise TrainingError(f"{folder.last}: a checkpoint of another model than {recipe.model}; choose another --out")
    then, now = checkpoint.recipe.model_dump(), recipe.model_dump()
    changed = sorted(name for name in now if name not in MAY_DIFFER and then[name] != now[name])
    if changed:
        raise TrainingError(
            f"{folder.path}: the run has another {changed[0]}: {then[changed[0]]}, not {now[changed[0]]}; "
            "resume with the recipe that it was started with, or choose another --out"
        )


def _describe(folder: RunFolder, recipe: Recipe, framework: str, device: str) -> None:
    document = {
        "command": shlex.join(sys.argv),
        "framework": framework,
        "device": device,
        "recipe": json.loads(recipe.model_dump_json()),
        "environment": environment(),
    }
    try:
        before = json.loads(folder.run.read_text("utf-8"))["sessions"] if folder.run.exists() else []
    except (ValueError, KeyError, TypeError):
        before = []
    try:
        files.write_text(folder.run, json.dumps({"sessions": [*before, document]}, indent=1))
    except OSError as error:
        raise TrainingError(f"{folder.run}: cannot be written: {error.strerror or error}") from None
