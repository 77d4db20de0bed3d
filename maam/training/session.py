"""A training run from its recipe to its report."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from maam.errors import RecipeError, TrainingError, require
from maam.training.checkpoint import Checkpoint
from maam.training.evaluation import Evaluation
from maam.training.folder import RunFolder
from maam.training.image_sources import Reading
from maam.training.loop import CHECKPOINT_STEPS, LOG_STEPS, Loop
from maam.training.network import find_network, find_recipe, name_model, with_network
from maam.training.opening import Start, agree_on_precision, check_same, open_run, read_start, write_description
from maam.training.protocol import Objective, Observer, Runner, Trainer
from maam.training.recipe import Recipe
from maam.training.report import write_report
from maam.training.rooms import find_room
from maam.training.sources import open_source


def train(
    model: str | os.PathLike[str] | None = None,
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
    """Train a network, write the run to the folder `out`, and return that folder.

    Args:
        model: a preset's name; a weights file, whose weights the run then starts from; or a spec document (.json).
            The recipe's where None.
        recipe: the default recipe of the preset, or of the one that the file's spec names, where None.
        out: a new or empty folder; with `resume`, that of the run to go on with.
        root: the folder of the data set.
        framework: "torch" or "mindspore". A run may be resumed in the other one.
        device: "cpu", "cuda" or "ascend"; the framework's best where None.
        resume: go on from the last checkpoint in `out`, from the beginning where there is none yet.
        num_workers: processes or threads that decode image files; see `maam.data.ImageBatches`.
        on_broken: what happens where an image file is broken: "error" or "skip".
        observer: is told of every record of the log; a `maam.training.Observer`.
        checkpoint_steps: steps between two checkpoints.
        log_steps: steps between two records of the log.

    Raises:
        MaamError: the recipe, the data, the folder, the device or the framework does not fit, or training diverged.
    """
    name, recipe = _chosen(model, recipe)
    spec = find_network(name, recipe.overrides)
    _check_ready(observer, checkpoint_steps=checkpoint_steps, log_steps=log_steps)
    room = find_room(framework)
    chosen = room.select_device(device)
    world = room.join_world(chosen)
    reading, share = Reading(framework, num_workers, on_broken), (world.rank, world.size)
    source = open_source(recipe, None if root is None else Path(root), spec, reading, share)
    room.select_precision(chosen, recipe.precision)  # what cannot be had is refused before anything is written
    folder = RunFolder(out)
    start = Start(None, "") if resume and folder.last.exists() else read_start(spec, recipe)
    with contextlib.closing(folder):
        checkpoint = open_run(folder, resume, world)
        recipe = recipe.replaced({"precision": agree_on_precision(room, chosen, recipe, checkpoint, world)})
        check_same(folder, checkpoint, spec, recipe)
        runner = room.make_runner(spec, seed=recipe.seed, device=chosen)
        trainer = _start(runner, recipe, start, checkpoint)
        told = _told(observer if world.rank == 0 else None, start.note)
        steps = {"checkpoint_steps": checkpoint_steps, "log_steps": log_steps}
        loop = Loop(runner, trainer, recipe, source, folder, told, world=world, **steps)
        if checkpoint is not None:
            loop.best = checkpoint.best_accuracy
        _run(loop, framework, chosen, start.note)
    return folder


def _chosen(model: str | os.PathLike[str] | None, recipe: Recipe | None) -> tuple[str, Recipe]:
    """The network's name and the recipe, which then names it too."""
    if recipe is not None and not isinstance(recipe, Recipe):
        raise RecipeError(
            f"recipe: expected a maam.training.Recipe, got an object of type {type(recipe).__name__}; "
            "read one with maam.training.read_recipe(NAME)"
        )
    recipe = recipe or find_recipe(name_model(model))
    name = name_model(model, recipe)
    return name, with_network(recipe, name)


def _check_ready(observer: object, **counts: int) -> None:
    """Refuse what would fail after hours: an observer without a method, a report without its packages, 0 steps."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise TrainingError(f"{name}: expected an integer of at least 1, got {count!r}")
    for package in ("sklearn", "matplotlib"):
        require(package, "train")
    missing = [name for name in vars(Observer) if not (name.startswith("_") or callable(getattr(observer, name, None)))]
    if observer is not None and missing:
        raise TrainingError(
            f"observer: an object of type {type(observer).__name__} has no {missing[0]}(); let it inherit from "
            "maam.training.Observer, whose methods do nothing"
        )


def _told(observer: Observer | None, note: str) -> Observer:
    """Who is told, and has been told of `note`."""
    told = Observer() if observer is None else observer
    if note:
        told.note(note)
    return told


def _start(runner: Runner, recipe: Recipe, start: Start, checkpoint: Checkpoint | None) -> Trainer:
    """What steps the model: as drawn, as the arrays of `start` have it, or as the checkpoint does."""
    arrays = start.arrays if checkpoint is None else checkpoint.arrays
    if arrays is not None:
        runner.write_arrays(arrays)  # before there is a trainer, whose averages start from them
    trainer = runner.trainer(recipe.optimizer, objective(recipe))
    if checkpoint is not None:
        trainer.write_state(checkpoint.state)
    return trainer


def _run(loop: Loop, framework: str, device: str, start: str) -> None:
    """From the first step to the report; the first process writes what there is to write."""
    first = loop.world.rank == 0
    if first:
        facts = {"framework": framework, "device": device, "class_names": loop.source.class_names, "start": start}
        write_description(loop.folder, loop.recipe, **facts)  # first: by it a folder is known to hold a run
        loop.folder.log.rewind(loop.step)
        if loop.step == 0:  # of a run that begins again
            loop.folder.final.unlink(missing_ok=True)
    loop.run()
    evaluation = loop.evaluate()
    if first:
        _report(loop, evaluation)


def _report(loop: Loop, evaluation: Evaluation) -> None:
    folder = loop.folder
    try:
        write_report(folder, evaluation, loop.source.class_names)
    except OSError as error:
        raise TrainingError(
            f"{error.filename or folder.path}: the report cannot be written: {error.strerror or error}; "
            f"the run is whole, its weights are {folder.final}; to make the report, resume (--resume)"
        ) from None


def objective(recipe: Recipe) -> Objective:
    """The part of a recipe that a step needs."""
    return Objective(recipe.label_smoothing, recipe.clip_norm, recipe.ema_decay is not None, recipe.precision)
