"""A run before its first step: what it must share with the one that it resumes, and what is noted of it."""

from __future__ import annotations

import contextlib
import json
from typing import Any, NamedTuple, get_args

import numpy as np

from maam import files
from maam.environment import command_line, environment
from maam.errors import DeviceError, SpecError, TrainingError, WeightsError
from maam.spec import Model, Node, head
from maam.training.checkpoint import Checkpoint, read_checkpoint
from maam.training.folder import RunFolder
from maam.training.recipe import IMAGE_FOLDER, Precision, Recipe
from maam.training.trained import find_trained
from maam.training.world import World
from maam.weights import read_weights
from maam.weights.exchange import read_whole
from maam.weights.matching import check_same_function, match

Array = np.ndarray[Any, Any]
PRECISIONS: tuple[str, ...] = get_args(Precision)
MAY_DIFFER = {"presets", "precision"}


def open_run(folder: RunFolder, resume: bool, world: World) -> Checkpoint | None:
    """Open a folder in the first process, then read its checkpoint in all.

    Raises:
        TrainingError, WeightsError: as `RunFolder.open` does.
    """
    found = folder.open(resume) if world.rank == 0 else None
    world.barrier()
    if world.rank and resume and folder.last.exists():
        return read_checkpoint(folder.last)
    return found


def agree_on_precision(room: Any, device: str, recipe: Recipe, checkpoint: Checkpoint | None, world: World) -> str:
    """What all processes compute in. "auto" is what a resumed run had; in a new one, the first process's choice.

    Raises:
        DeviceError: the device has not what the recipe asks for.
    """
    if recipe.precision == "auto" and checkpoint is not None:
        with contextlib.suppress(DeviceError):  # another framework or device may not have it
            return room.select_precision(device, checkpoint.recipe.precision)
    chosen = PRECISIONS.index(room.select_precision(device, recipe.precision))
    return PRECISIONS[int(world.gather(np.array([chosen], np.float32))[0])]


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
        files.write_text(folder.run, json.dumps({"sessions": [*before, document]}, indent=1))
    except OSError as error:
        raise TrainingError(f"{folder.run}: cannot be written: {error.strerror or error}") from None
