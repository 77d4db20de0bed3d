"""What a smaller form of a model costs and brings: accuracy on test images, size, time."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from maam.cli.consoles import console, track
from maam.timing import interleave, ratios
from maam.training.evaluation import evaluate

Array = np.ndarray[Any, Any]
Predict = Callable[[Array], Array]
TEST_BATCH = 250


class Form(NamedTuple):
    """A model as a function of NumPy arrays, and what else there is to say of it."""

    predict: Predict
    facts: tuple[str, ...] = ()


def compare(
    forms: Mapping[str, Form],
    images: Array,
    labels: Array,
    headings: tuple[str, ...] = (),
    batches: tuple[int, ...] = (1, 32),
) -> dict[str, float]:
    """Print accuracy, facts and speed (CPU time, the first form = 1), and return the accuracies, 0 to 1."""
    accuracies = {name: _accuracy(name, form.predict, images, labels) for name, form in forms.items()}
    speeds = [_speeds(forms, images[:count]) for count in batches]
    table = Table("form", "accuracy", *headings, *(f"times faster, batch {count}" for count in batches))
    for name, form in forms.items():
        table.add_row(name, f"{accuracies[name]:.2%}", *form.facts, *(f"{speed[name]:.2f}" for speed in speeds))
    console().print(table)
    return accuracies


def _accuracy(name: str, predict: Predict, images: Array, labels: Array) -> float:
    starts = range(0, len(images), TEST_BATCH)
    watched = track(starts, f"{name}, accuracy", len(starts))
    return evaluate(predict, ((images[s : s + TEST_BATCH], labels[s : s + TEST_BATCH]) for s in watched)).accuracy


def _speeds(forms: Mapping[str, Form], x: Array) -> dict[str, float]:
    functions = {name: functools.partial(form.predict, x) for name, form in forms.items()}
    return ratios(interleave(functions, clock=time.process_time), next(iter(forms)))
