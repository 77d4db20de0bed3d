"""The state of a training run in one safetensors file: what `--resume` needs, in either framework."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maam._messages import listed
from maam.backend.protocol import LossScale, OptimizerState
from maam.errors import MaamError, TrainingError, WeightsError
from maam.spec import Node, parse_json
from maam.training.recipe import Recipe
from maam.weights.file import CHECKPOINT_FORMAT, read_header_and_arrays, write_safetensors

Array = np.ndarray[Any, Any]
PathLike = str | os.PathLike[str]
VERSION = "1"


@dataclass(frozen=True)
class Checkpoint:
    """Everything that the rest of a run depends on; order, crops and flips follow from the recipe's seed.

    Attributes:
        spec: the model's.
        recipe: with the precision that the run has.
        arrays: parameters and running statistics by canonical name.
        state: the optimizer's.
        best_accuracy: the highest test accuracy so far, 0 to 1; -1 before the first evaluation.
    """

    spec: Node
    recipe: Recipe
    arrays: dict[str, Array]
    state: OptimizerState
    best_accuracy: float = -1.0


def write_checkpoint(path: PathLike, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in one step.

    Raises:
        TrainingError: it cannot be written; a file that was there stays.
    """
    state = checkpoint.state
    progress = {
        "step": state.step,
        "skipped": state.skipped,
        "loss_scale": state.loss_scale,
        "best_accuracy": checkpoint.best_accuracy,
    }
    header = {
        "format": CHECKPOINT_FORMAT,
        "format_version": VERSION,
        "spec": checkpoint.spec.to_json(),
        "recipe": checkpoint.recipe.model_dump_json(),
        "progress": json.dumps(progress),
    }
    try:
        write_safetensors(path, _sections(checkpoint), header)
    except WeightsError as error:
        before = "the checkpoint before it is intact" if Path(path).exists() else "there is no checkpoint before it"
        raise TrainingError(f"{error}; {before}") from None


def read_checkpoint(path: PathLike) -> Checkpoint:
    """The checkpoint in a file.

    Raises:
        TrainingError: there is none, it is broken, or arrays are missing or have a wrong shape.
    """
    try:
        header, arrays = read_header_and_arrays(path)
    except WeightsError as error:
        raise TrainingError(str(error)) from None
    if header.get("format") != CHECKPOINT_FORMAT or header.get("format_version") != VERSION:
        raise TrainingError(f"{path}: no training checkpoint of this version of maam")
    try:
        spec, recipe = parse_json(header["spec"]), Recipe(**json.loads(header["recipe"]))
        progress = json.loads(header["progress"])
        scale = progress["loss_scale"]
        step, best = int(progress["step"]), float(progress["best_accuracy"])
        skipped = int(progress.get("skipped", 0))  # a file of before it was counted has none
        if min(step, skipped) < 0:
            raise ValueError(f"a step of {min(step, skipped)}")
        loss_scale = None if scale is None else LossScale(float(scale[0]), int(scale[1]))
    except (MaamError, ArithmeticError, KeyError, TypeError, ValueError, IndexError, RecursionError) as error:
        raise TrainingError(f"{path}: the checkpoint's header is broken: {error}") from None
    moments = {name: _section(arrays, f"optimizer.{name}") for name in recipe.optimizer.moments}
    checkpoint = Checkpoint(
        spec,
        recipe,
        _section(arrays, "model"),
        OptimizerState(step, moments, _section(arrays, "average"), loss_scale, skipped),
        best,
    )
    _check(path, checkpoint)
    return checkpoint


def find_not_finite(checkpoint: Checkpoint) -> list[str]:
    """The arrays that hold an infinity or NaN, by their names in the file, such as "model/reduce.conv.weight"."""
    return [name for name, array in _sections(checkpoint).items() if not np.isfinite(array).all()]


def _sections(checkpoint: Checkpoint) -> dict[str, Array]:
    """All arrays of a checkpoint, by their names in the file."""
    arrays = _prefixed("model", checkpoint.arrays) | _prefixed("average", checkpoint.state.average)
    for moment, found in checkpoint.state.moments.items():
        arrays |= _prefixed(f"optimizer.{moment}", found)
    return arrays


def _prefixed(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def _section(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    start = f"{prefix}/"
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


def _check(path: PathLike, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint whose arrays are not those of its spec."""
    shapes = {p.name: tuple(p.shape) for p in checkpoint.spec.parameters()}
    trainable = {p.name: tuple(p.shape) for p in checkpoint.spec.parameters() if p.trainable}
    _check_section(path, "model", checkpoint.arrays, shapes)
    for moment, arrays in checkpoint.state.moments.items():
        _check_section(path, moment, arrays, trainable)
    if checkpoint.recipe.ema_decay is not None:
        _check_section(path, "average", checkpoint.state.average, shapes)


def _check_section(path: PathLike, what: str, arrays: Mapping[str, Array], shapes: Mapping[str, Any]) -> None:
    found = {name: array.shape for name, array in arrays.items()}
    wrong = sorted(name for name in found.keys() | shapes.keys() if found.get(name) != shapes.get(name))
    if wrong:
        raise TrainingError(f"{path}: {what}: these arrays do not fit the checkpoint's spec: {listed(wrong[:5])}")
    if bad := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
        raise TrainingError(f"{path}: {what}: not finite: {listed(bad[:5])}")
