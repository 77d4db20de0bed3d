"""A training run from its recipe to its report: `train`, and its steps in the order in which they happen."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, NamedTuple, get_args

import numpy as np

from maam import _io
from maam._messages import check_counts
from maam._system import command_line, environment
from maam.backend.protocol import Objective, ProcessGroup, Runner, Trainer, TrainingBackend
from maam.backend.registry import load_training_backend
from maam.errors import DeviceError, SpecError, TrainingError, WeightsError, require
from maam.spec import Model, Node, draw, head
from maam.training.checkpoint import Checkpoint
from maam.training.evaluate import Evaluation
from maam.training.fingerprint import check_same_data, describe_data
from maam.training.initialization import initialize, with_momentum
from maam.training.loop import CHECKPOINT_STEPS, LOG_STEPS, Loop, Observer
from maam.training.recipe import Initialization, Precision, Recipe
from maam.training.recipe_files import find_network
from maam.training.report import write_report
from maam.training.resume import check_resumable, describe_longer, find_settings
from maam.training.run_dir import Resume, RunFolder, find_weights
from maam.training.sources import ReadOptions, Source, open_source
from maam.weights import read_weights
from maam.weights.exchange import read_whole
from maam.weights.match import check_same_function, match

Array = np.ndarray[Any, Any]
_PRECISIONS: tuple[str, ...] = get_args(Precision)


def train(
    model: str | os.PathLike[str] | None = None,
    recipe: Recipe | str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    framework: str | None = None,
    device: str | None = None,
    resume: Resume = False,
    num_workers: int = 0,
    on_broken: str = "error",
    observer: Observer | None = None,
    checkpoint_steps: int = CHECKPOINT_STEPS,
    log_steps: int = LOG_STEPS,
    **changes: Any,
) -> RunFolder:
    """Train a network, and write its checkpoints, log, weights and report to a folder.

    Args:
        model: the name of a preset, or the path of a weights file to start from or of a spec document (.json).
            Default: the recipe's model.
        recipe: the settings of the run, or the name or .toml file of a recipe. Default: the default recipe of the
            preset; with `resume`, that of the run.
        out: a new or empty folder; with `resume`, the folder of the run to continue. Default: runs/MODEL.
        root: the folder of the data set. Default: with `resume`, that of the run.
        framework: "torch" or "mindspore". A run can be resumed in the other framework. Default: that of the run with
            `resume`, else "torch".
        device: "cpu", "cuda" or "ascend". Default: the best device of the framework.
        resume: continue the run in `out` from its last checkpoint, or from the start if it has none yet. "auto"
            continues the run if there is one, and starts a new one otherwise. More `epochs` than before train a run
            longer: its schedule then spans all epochs.
        num_workers: processes or threads that decode image files; see `maam.data.ImageBatches`.
        on_broken: what to do with a broken image file, "error" or "skip"; see `maam.data.ImageBatches`.
        observer: receives the progress of the run.
        checkpoint_steps: steps between two checkpoints.
        log_steps: steps between two records of the log.
        changes: changed fields of the recipe, such as epochs=5; see `Recipe.replaced`.

    Returns:
        The folder of the run.

    Raises:
        MaamError: the recipe, the data, the folder, the device or the framework does not fit, or training diverged.

    Example:
        >>> from maam.training import train
        >>> run = train("maam_digits", out="runs/digits", epochs=1, batch_size=256)
        >>> run.final.name, run.log.records()[-1]["step"]
        ('final.safetensors', 5)
    """
    recipe, out, root, framework = find_settings(
        model, recipe, changes, out=out, root=root, framework=framework, resume=bool(resume)
    )
    spec = with_momentum(find_network(str(recipe.model), recipe.overrides), recipe.batch_norm_momentum)
    recipe.optimizer.groups(spec, recipe.freeze)  # raises if a pattern does not fit, before anything is written
    _check_arguments(observer, checkpoint_steps=checkpoint_steps, log_steps=log_steps)
    backend = load_training_backend(framework)
    chosen = backend.select_device(device)
    processes = backend.join_processes(chosen)
    reading, share = ReadOptions(framework, num_workers, on_broken), (processes.rank, processes.size)
    source = open_source(recipe, root, spec, reading, share)
    backend.select_precision(chosen, recipe.precision)  # refuse an unsupported one before anything is written
    folder = RunFolder(out)
    start = Start(None, "") if resume and folder.last.exists() else make_start(spec, recipe, source)
    with contextlib.closing(folder):
        checkpoint = open_run(folder, resume, processes)
        precision = agree_on_precision(backend, chosen, recipe, checkpoint, processes)
        recipe = recipe.replaced({"precision": precision})
        earlier = check_resumable(folder, checkpoint, spec, recipe)
        runner = backend.make_training_runner(spec, seed=recipe.seed, device=chosen)
        trainer = make_trainer(runner, recipe, start, checkpoint)
        active = observer if observer is not None and processes.rank == 0 else Observer()
        steps = {"checkpoint_steps": checkpoint_steps, "log_steps": log_steps}
        loop = Loop(runner, trainer, recipe, source, folder, active, processes=processes, **steps)
        if checkpoint is not None:
            loop.best = checkpoint.best_accuracy
        if earlier is not None and earlier.epochs < recipe.epochs:
            active.note(describe_longer(earlier, recipe, loop.step, loop.total, loop.steps_per_epoch))
        complete(loop, framework, chosen, start.note, root)
    return folder


def _check_arguments(observer: object, **counts: int) -> None:
    """Check the observer, the packages of the report and the counts, which would otherwise fail after hours."""
    check_counts(TrainingError, **counts)
    for package in ("sklearn", "matplotlib"):
        require(package, "train")
    missing = [name for name in vars(Observer) if not (name.startswith("_") or callable(getattr(observer, name, None)))]
    if observer is not None and missing:
        raise TrainingError(
            f"observer: an object of type {type(observer).__name__} has no {missing[0]}(); derive its class from "
            "maam.training.Observer, whose methods do nothing"
        )


class Start(NamedTuple):
    """The initial weights of a new run.

    Attributes:
        arrays: parameters and running statistics by name; None if the seed draws them all.
        note: where the arrays come from; "" if the seed draws them all.
    """

    arrays: dict[str, Array] | None
    note: str


def make_start(spec: Node, recipe: Recipe, source: Source) -> Start:
    """Return the initial weights: those of a file, or random ones that the recipe's `initialization` has changed.

    Raises:
        RecipeError: the `initialization` does not fit the model or the data.
        WeightsError: as in `read_start`.
    """
    start = read_start(spec, recipe)
    if start.arrays is not None or recipe.initialization == Initialization():
        return start
    return Start(initialize(spec, draw(spec.parameters(), recipe.seed), recipe.initialization, source.whole), "")


def read_start(spec: Node, recipe: Recipe) -> Start:
    """Read the weights that the recipe starts from.

    Raises:
        WeightsError: the file is broken, or belongs to another network.
    """
    if recipe.weights is None:
        return Start(None, "")
    path = find_weights(recipe.weights).path
    saved, _ = read_weights(path)
    classes = spec.num_classes if isinstance(spec, Model) else None
    try:
        changed, arrays = read_whole(path, np.dtype(np.float32), classes, recipe.seed)
    except SpecError as error:
        raise WeightsError(f"{path}: {recipe.model} needs the weights of a classifier: {error}") from None
    advice = "train the preset that the file was made from, with the same options (-o overrides.OPTION=VALUE)"
    check_same_function(spec, changed, source=str(path), advice=advice)
    new = "" if changed == saved else f"; the last layer, {head(spec)}, is new and drawn from the seed"
    return Start(match(spec, arrays, source=str(path))[0], f"initial weights: {path}{new}")


def open_run(folder: RunFolder, resume: Resume, processes: ProcessGroup) -> Checkpoint | None:
    """Open the folder in the first process, then return its checkpoint in every process.

    Raises:
        TrainingError: as in `RunFolder.open`.
    """
    found = folder.open(resume) if processes.rank == 0 else None
    processes.barrier()
    return folder.read_last() if processes.rank and resume else found


def agree_on_precision(
    backend: TrainingBackend, device: str, recipe: Recipe, checkpoint: Checkpoint | None, processes: ProcessGroup
) -> str:
    """Return the precision of all processes.

    "auto" is the precision of the resumed run; in a new run, the one that the first process chooses.

    Raises:
        DeviceError: the device does not support the recipe's precision.
    """
    if recipe.precision == "auto" and checkpoint is not None:
        with contextlib.suppress(DeviceError):  # another framework or device may not support it
            return backend.select_precision(device, checkpoint.recipe.precision)
    chosen = _PRECISIONS.index(backend.select_precision(device, recipe.precision))
    return _PRECISIONS[int(processes.gather(np.array([chosen], np.float32))[0])]


def make_trainer(runner: Runner, recipe: Recipe, start: Start, checkpoint: Checkpoint | None) -> Trainer:
    """Write the initial weights or those of the checkpoint into the model, and return its trainer."""
    arrays = start.arrays if checkpoint is None else checkpoint.arrays
    if arrays is not None:
        runner.write_arrays(arrays)  # before the trainer is made, because its averages start from the weights
    trainer = runner.trainer(recipe.optimizer, objective(recipe))
    if checkpoint is not None:
        trainer.write_state(checkpoint.state)
    return trainer


def objective(recipe: Recipe) -> Objective:
    """Return the part of a recipe that a training step depends on."""
    return Objective(
        recipe.label_smoothing,
        recipe.clip_norm,
        average=recipe.averages,
        precision=recipe.precision,
        lookahead=recipe.lookahead.steps > 0,
        freeze=recipe.freeze,
    )


def complete(loop: Loop, framework: str, device: str, start: str, root: str | os.PathLike[str] | None) -> None:
    """Train to the end and write the report; only the first process writes files.

    Raises:
        TrainingError: the data is not that of the run, training diverged, or a file cannot be written.
    """
    first = loop.processes.rank == 0
    if start:
        loop.observer.note(start)
    if first:
        check_same_data(loop.folder, loop.source)
        place = None if root is None else os.path.abspath(root)
        facts: dict[str, Any] = {"framework": framework, "device": device, "root": place, "start": start}
        facts |= {"class_names": loop.source.class_names, "data": describe_data(loop.source)}
        write_description(loop.folder, loop.recipe, **facts)  # first, because run.json marks the folder of a run
        loop.folder.log.rewind(loop.step)
        if loop.step == 0:  # the run starts again
            loop.folder.final.unlink(missing_ok=True)
    loop.run()
    evaluation = loop.evaluate()
    if first:
        report(loop, evaluation)


def write_description(folder: RunFolder, recipe: Recipe, **facts: Any) -> None:
    """Add this session to run.json: command, recipe, environment and `facts`.

    Args:
        folder: the folder of the run.
        recipe: the recipe of this session.
        facts: framework, device, root, start, class_names and data; a resumed run keeps the `start` of its
            first session.

    Raises:
        TrainingError: the file cannot be written.
    """
    facts = {"command": command_line(), **facts, "recipe": json.loads(recipe.model_dump_json())}
    document = {**facts, "environment": environment()}
    before: list[dict[str, Any]] = []
    with contextlib.suppress(TrainingError):  # a missing or broken file is replaced
        before = folder.sessions()
        document["start"] = document["start"] or before[-1].get("start", "")
    try:
        _io.write_text(folder.run, json.dumps({"sessions": [*before, document]}, indent=1))
    except OSError as error:
        raise TrainingError(f"{folder.run}: cannot be written: {error.strerror or error}") from None


def report(loop: Loop, evaluation: Evaluation) -> None:
    """Write the report.

    Raises:
        TrainingError: a file of the report cannot be written.
    """
    folder = loop.folder
    try:
        write_report(folder, evaluation, loop.source.class_names)
    except OSError as error:
        raise TrainingError(
            f"{error.filename or folder.path}: the report cannot be written: {error.strerror or error}; training is "
            f"complete, and the weights are in {folder.final}; to write the report, resume the run (--resume)"
        ) from None
