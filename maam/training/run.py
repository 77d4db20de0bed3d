"""A training run from its recipe to its report."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from maam import _io
from maam._system import command_line, environment
from maam.backend.protocol import Objective, ProcessGroup, Runner, Trainer, TrainingBackend
from maam.backend.registry import load_training_backend
from maam.errors import DeviceError, RecipeError, SpecError, TrainingError, WeightsError, require
from maam.spec import Model, Node, head
from maam.training.checkpoint import Checkpoint, read_checkpoint
from maam.training.evaluate import Evaluation, find_trained
from maam.training.loop import CHECKPOINT_STEPS, LOG_STEPS, Loop, Observer
from maam.training.recipe import IMAGE_FOLDER, Precision, Recipe
from maam.training.recipe_files import find_network, find_recipe, name_model, with_network
from maam.training.report import write_report
from maam.training.run_dir import RunFolder
from maam.training.sources import Reading, open_source
from maam.weights import read_weights
from maam.weights.exchange import read_whole
from maam.weights.match import check_same_function, match

Array = np.ndarray[Any, Any]
PRECISIONS: tuple[str, ...] = get_args(Precision)
MAY_DIFFER = {"presets", "precision"}


def open_run(folder: RunFolder, resume: bool, processes: ProcessGroup) -> Checkpoint | None:
    """Open a folder in the first process, then read its checkpoint in all.

    Raises:
        TrainingError, WeightsError: as `RunFolder.open` does.
    """
    found = folder.open(resume) if processes.rank == 0 else None
    processes.barrier()
    if processes.rank and resume and folder.last.exists():
        return read_checkpoint(folder.last)
    return found


def agree_on_precision(
    backend: TrainingBackend, device: str, recipe: Recipe, checkpoint: Checkpoint | None, processes: ProcessGroup
) -> str:
    """What all processes compute in. "auto" is what a resumed run had; in a new one, the first process's choice.

    Raises:
        DeviceError: the device has not what the recipe asks for.
    """
    if recipe.precision == "auto" and checkpoint is not None:
        with contextlib.suppress(DeviceError):  # another framework or device may not have it
            return backend.select_precision(device, checkpoint.recipe.precision)
    chosen = PRECISIONS.index(backend.select_precision(device, recipe.precision))
    return PRECISIONS[int(processes.gather(np.array([chosen], np.float32))[0])]


def check_same(folder: RunFolder, checkpoint: Checkpoint | None, spec: Node, recipe: Recipe) -> None:
    """Refuse to go on with another model or recipe; precision may change, as another framework may need.

    A run that was killed before its first checkpoint is known by its description, if that can be read.

    Raises:
        TrainingError: naming what differs.
    """
    if checkpoint is not None and checkpoint.spec != spec:
        raise TrainingError(
            f"{folder.last}: a checkpoint of another model than {recipe.model}; choose another out (--out)"
        )
    before = _described(folder) if checkpoint is None else checkpoint.recipe
    if before is None:
        return
    then, now = _compared(before, spec), _compared(recipe, spec)
    changed = sorted(name for name in now if name not in MAY_DIFFER and then[name] != now[name])
    if changed:
        raise TrainingError(
            f"{folder.path}: the run has another {changed[0]}: {then[changed[0]]}, not {now[changed[0]]}; "
            f"resume with the recipe that it was started with; or {_another(folder, checkpoint)}"
        )


def _described(folder: RunFolder) -> Recipe | None:
    try:
        return folder.recipe()
    except TrainingError:  # none yet, or one that a new description takes the place of
        return None


def _compared(recipe: Recipe, spec: Node) -> dict[str, Any]:
    """The recipe's fields, with the size of validation written out that is the default where none is given."""
    document = recipe.model_dump()
    if isinstance(spec, Model) and recipe.data == IMAGE_FOLDER:
        document["images"]["resize"] = recipe.images.framings(spec.input_shape[1])[1].resize
    return document


def _another(folder: RunFolder, checkpoint: Checkpoint | None) -> str:
    if checkpoint is None:
        return "choose another out (--out)"
    return (
        f"start from its weights in another out: weights={str(folder.path)!r} (--weights {folder.path} --out ANOTHER)"
    )


class Start(NamedTuple):
    """What a new run starts from.

    Attributes:
        arrays: of parameters and running statistics by name; None where the seed draws them all.
        note: in words, where the arrays come from; "" where the seed draws them.
    """

    arrays: dict[str, Array] | None
    note: str


def read_start(spec: Node, recipe: Recipe) -> Start:
    """The weights that the recipe names, as the run's model takes them.

    Raises:
        WeightsError: the file is broken, or of another network than the recipe's.
    """
    if recipe.weights is None:
        return Start(None, "")
    path = find_trained(recipe.weights).path
    saved, _ = read_weights(path)
    classes = spec.num_classes if isinstance(spec, Model) else None
    try:
        changed, arrays = read_whole(path, np.dtype(np.float32), classes, recipe.seed)
    except SpecError as error:
        raise WeightsError(f"{path}: not the weights of a classifier, which {recipe.model} is: {error}") from None
    advice = "train the preset that the file was made from, with the same options (-o overrides.OPTION=VALUE)"
    check_same_function(spec, changed, source=str(path), advice=advice)
    new = "" if changed == saved else f"; new is the last layer, {head(spec)}, which the seed draws"
    return Start(match(spec, arrays, source=str(path))[0], f"the weights are those of {path}{new}")


def write_description(folder: RunFolder, recipe: Recipe, **facts: Any) -> None:
    """Add this session to run.json: command, recipe, environment, and `facts` (framework, device, class_names, start).

    A resumed run keeps what it started from.

    Raises:
        TrainingError: the file cannot be written.
    """
    facts = {"command": command_line(), **facts, "recipe": json.loads(recipe.model_dump_json())}
    document = {**facts, "environment": environment()}
    before: list[dict[str, Any]] = []
    with contextlib.suppress(TrainingError):  # none yet, or broken: this session takes its place
        before = folder.sessions()
        document["start"] = document["start"] or before[-1].get("start", "")
    try:
        _io.write_text(folder.run, json.dumps({"sessions": [*before, document]}, indent=1))
    except OSError as error:
        raise TrainingError(f"{folder.run}: cannot be written: {error.strerror or error}") from None


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
    backend = load_training_backend(framework)
    chosen = backend.select_device(device)
    processes = backend.join_processes(chosen)
    reading, share = Reading(framework, num_workers, on_broken), (processes.rank, processes.size)
    source = open_source(recipe, None if root is None else Path(root), spec, reading, share)
    backend.select_precision(chosen, recipe.precision)  # what cannot be had is refused before anything is written
    folder = RunFolder(out)
    start = Start(None, "") if resume and folder.last.exists() else read_start(spec, recipe)
    with contextlib.closing(folder):
        checkpoint = open_run(folder, resume, processes)
        recipe = recipe.replaced({"precision": agree_on_precision(backend, chosen, recipe, checkpoint, processes)})
        check_same(folder, checkpoint, spec, recipe)
        runner = backend.make_training_runner(spec, seed=recipe.seed, device=chosen)
        trainer = _start(runner, recipe, start, checkpoint)
        told = _told(observer if processes.rank == 0 else None, start.note)
        steps = {"checkpoint_steps": checkpoint_steps, "log_steps": log_steps}
        loop = Loop(runner, trainer, recipe, source, folder, told, processes=processes, **steps)
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
    first = loop.processes.rank == 0
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
