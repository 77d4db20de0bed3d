"""Test images of the data sets in memory, and a table that compares models on them."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from maam import data
from maam._system import interleave, ratios
from maam.cli.terminal import console, track
from maam.errors import DataError, ShapeError, SpecError
from maam.spec import Node, input_rule
from maam.training.evaluate import evaluate
from maam.training.sources import TEST_BATCH, read_dataset

Array = np.ndarray[Any, Any]
Predict = Callable[[Array], Array]
NAMES = ("digits", "cifar10", "cifar100")


def load_images(name: str, root: Path | None, split: str = "test") -> tuple[Array, Array]:
    """Return the images of a data set, float32 (N, C, H, W) in [0, 1], and their labels, int32 (N,).

    Raises:
        DataError: there is no such data set, or it is incomplete, or `root` is missing.
    """
    if name not in NAMES:
        raise DataError(f"--data: expected one of {', '.join(NAMES)}, got {name!r}")
    dataset = read_dataset(name, root, split)
    return data.to_float(dataset.images), dataset.labels


def check_root(data: str | None, root: Path | None) -> None:
    """Raise `DataError` for a `--root` without `--data`."""
    if data is None and root is not None:
        raise DataError(f"--root {root}: this has no effect without --data; add --data NAME")


def check_images(spec: Node, name: str, images: Array, labels: Array) -> None:
    """Check that a model takes the images (N, C, H, W) of a data set and has as many logits as there are classes.

    Raises:
        ShapeError: the images have the wrong size or number of channels.
        SpecError: the number of classes differs.
    """
    try:
        input_rule(spec).check(images.shape)
        output = spec.output_shape(images.shape[1:])
    except ShapeError as error:
        raise ShapeError(f"--data {name}: {error}") from None
    if len(output) == 1 and labels.max() + 1 != output[0]:  # outputs that are maps have no classes
        raise SpecError(f"--data {name} has {labels.max() + 1} classes, but the model has {output[0]} outputs")


def check_classifier(spec: Node, images: Array) -> None:
    """Raise `SpecError` unless the output for images (N, C, H, W) is a vector of logits."""
    output = spec.output_shape(images.shape[1:])
    if len(output) != 1:
        raise SpecError(f"--data measures accuracy: expected a classifier, got a model whose output is a map {output}")


class Form(NamedTuple):
    """A form of a model to compare: its function, and cells for further columns of the table."""

    predict: Predict
    cells: tuple[str, ...] = ()


def compare(
    forms: Mapping[str, Form],
    images: Array,
    labels: Array,
    headings: tuple[str, ...] = (),
    batches: tuple[int, ...] = (1, 32),
) -> dict[str, float]:
    """Print the accuracy and the speed of several forms of a model, and return the accuracies, 0 to 1.

    The speed is CPU time, relative to the first form.
    """
    accuracies = {name: accuracy(name, form.predict, images, labels) for name, form in forms.items()}
    speeds = [_speeds(forms, images[:count]) for count in batches]
    table = Table("form", "accuracy", *headings, *(f"times faster, batch {count}" for count in batches))
    for name, form in forms.items():
        table.add_row(name, f"{accuracies[name]:.2%}", *form.cells, *(f"{speed[name]:.2f}" for speed in speeds))
    console().print(table)
    return accuracies


def accuracy(name: str, predict: Predict, images: Array, labels: Array) -> float:
    """Return the accuracy of a model, 0 to 1, with progress under its name."""
    starts = range(0, len(images), TEST_BATCH)
    watched = track(starts, f"{name}, accuracy", len(starts))
    return evaluate(predict, ((images[s : s + TEST_BATCH], labels[s : s + TEST_BATCH]) for s in watched)).accuracy


def _speeds(forms: Mapping[str, Form], x: Array) -> dict[str, float]:
    functions = {name: functools.partial(form.predict, x) for name, form in forms.items()}
    return ratios(interleave(functions, clock=time.process_time), next(iter(forms)))
