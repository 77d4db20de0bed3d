"""Checkpoints: the whole state of a training run in one safetensors file that either framework can resume."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maam import _documents
from maam._messages import listed
from maam.backend.optimizer import find_frozen
from maam.backend.protocol import LossScale, OptimizerState
from maam.errors import MaamError, TrainingError, WeightsError
from maam.spec import Node, parse_json
from maam.training.recipe import Recipe
from maam.weights.file import CHECKPOINT_FORMAT, read_header_and_arrays, write_safetensors

Array = np.ndarray[Any, Any]
PathLike = str | os.PathLike[str]
VERSION = "1"
MAX_STEPS = 2**40


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run. Order, crops and flips are not stored: they follow from the recipe's seed and the step.

    Attributes:
        spec: the model.
        recipe: the recipe, with the precision of the run in place of "auto".
        arrays: parameters and running statistics by canonical name.
        state: the state of the optimizer.
        best_accuracy: the highest accuracy so far, 0 to 1, on the test images or those that `validation` holds out; -1
            before the first evaluation.
    """

    spec: Node
    recipe: Recipe
    arrays: dict[str, Array]
    state: OptimizerState
    best_accuracy: float = -1.0


def write_checkpoint(path: PathLike, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically.

    Raises:
        TrainingError: the file cannot be written; an existing file is unchanged.
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
        write_safetensors(path, _all_arrays(checkpoint), header)
    except WeightsError as error:
        before = "the previous checkpoint is intact" if Path(path).exists() else "there is no earlier checkpoint"
        raise TrainingError(f"{error}; {before}") from None


def read_checkpoint(path: PathLike) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        TrainingError: the file is missing, broken or not a checkpoint, or its arrays do not fit its spec.
    """
    try:
        header, arrays = read_header_and_arrays(path)
    except WeightsError as error:
        raise TrainingError(str(error)) from None
    if header.get("format") != CHECKPOINT_FORMAT or header.get("format_version") != VERSION:
        given = f"format {header.get('format')!r}, version {header.get('format_version')!r}"
        raise TrainingError(f"{path}: expected a training checkpoint of version {VERSION}, got {given[:120]}")
    try:
        spec, recipe = parse_json(header["spec"]), Recipe(**_documents.parse_json(header["recipe"]))
        progress = _documents.parse_json(header["progress"])
        scale = progress["loss_scale"]
        step, best = int(progress["step"]), float(progress["best_accuracy"])
        skipped = int(progress.get("skipped", 0))  # files of earlier versions do not count skipped steps
        if not 0 <= skipped <= step <= MAX_STEPS:
            raise ValueError(f"step, skipped: expected 0 <= skipped <= step <= {MAX_STEPS}, got {step}, {skipped}")
        find_frozen(spec, recipe.freeze)  # raises if the patterns do not fit the spec
        loss_scale = None if scale is None else LossScale(float(scale[0]), int(scale[1]))
    except (MaamError, ArithmeticError, KeyError, TypeError, ValueError, IndexError, RecursionError) as error:
        raise TrainingError(f"{path}: the checkpoint's header is broken: {error}") from None
    moments = {name: _without_prefix(arrays, f"optimizer.{name}") for name in recipe.optimizer.moments}
    state = OptimizerState(step, moments, _without_prefix(arrays, "average"), loss_scale, skipped)
    checkpoint = Checkpoint(spec, recipe, _without_prefix(arrays, "model"), state, best)
    _check_arrays(path, checkpoint)
    return checkpoint


def find_not_finite(checkpoint: Checkpoint) -> list[str]:
    """Return the arrays with an infinity or NaN, by their names in the file, such as "model/reduce.conv.weight"."""
    return [name for name, array in _all_arrays(checkpoint).items() if not np.isfinite(array).all()]


def _all_arrays(checkpoint: Checkpoint) -> dict[str, Array]:
    """Return all arrays of a checkpoint by their names in the file."""
    arrays = _with_prefix(checkpoint.arrays, "model") | _with_prefix(checkpoint.state.average, "average")
    for moment, found in checkpoint.state.moments.items():
        arrays |= _with_prefix(found, f"optimizer.{moment}")
    return arrays


def _with_prefix(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


def _without_prefix(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Return the arrays whose names have a prefix, without it."""
    start = f"{prefix}/"
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


def _check_arrays(path: PathLike, checkpoint: Checkpoint) -> None:
    """Check that the arrays of a checkpoint are finite and have the names and shapes of its spec."""
    shapes = {p.name: tuple(p.shape) for p in checkpoint.spec.parameters()}
    frozen = find_frozen(checkpoint.spec, checkpoint.recipe.freeze)
    trainable = {p.name: shapes[p.name] for p in checkpoint.spec.parameters() if p.trainable and p.name not in frozen}
    groups = [("model", checkpoint.arrays, shapes)]
    groups += [(moment, arrays, trainable) for moment, arrays in checkpoint.state.moments.items()]
    if checkpoint.recipe.averages:
        groups.append(("average", checkpoint.state.average, shapes))
    for what, arrays, expected in groups:
        found = {name: array.shape for name, array in arrays.items()}
        wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        if wrong:
            raise TrainingError(f"{path}: {what}: these arrays do not fit the checkpoint's spec: {listed(wrong[:5])}")
        if bad := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
            raise TrainingError(f"{path}: {what}: these arrays are not finite: {listed(bad[:5])}")
