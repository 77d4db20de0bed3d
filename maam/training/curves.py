"""What the log of a run says of its steps and epochs, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from maam.errors import TrainingError
from maam.training.log import Record

Array = np.ndarray[Any, Any]


class Curves(NamedTuple):
    """A run as far as it came, float64 but for `epoch`.

    Attributes:
        loss, accuracy: of each training step (steps,).
        epoch: the number of each step's epoch, int64 (steps,).
        seconds: of training in each of them, in whichever session (steps,).
        epochs: the numbers of the whole epochs, int64 (epochs,): from 0 on, unless the log was lost.
        test_loss, test_accuracy: after each whole epoch (epochs,).
        images_per_second: in training, the median over the records.
        waiting: the share of a step that waits for data, the median over the records.
    """

    loss: Array
    accuracy: Array
    epoch: Array
    seconds: Array
    epochs: Array
    test_loss: Array
    test_accuracy: Array
    images_per_second: float
    waiting: float

    def check_whole(self) -> None:
        """Refuse a log that lacks an epoch before its last.

        Raises:
            TrainingError: it does.
        """
        if self.epochs.tolist() != list(range(len(self.epochs))):
            raise TrainingError("the log of the run lacks epochs: lines of it were lost")

    def of_epochs(self, values: Array) -> list[Array]:
        """The part of `values` (steps,) that belongs to each whole epoch."""
        return [values[self.epoch == index] for index in self.epochs]

    def means(self, values: Array) -> Array:
        """The mean of `values` (steps,) over the steps of each whole epoch, float64 (epochs,)."""
        return np.array([part.mean() for part in self.of_epochs(values)])

    @property
    def minutes(self) -> Array:
        """Of training, without evaluation, in each whole epoch, float64 (epochs,)."""
        return np.array([part.sum() for part in self.of_epochs(self.seconds)]) / 60


def read_curves(records: Sequence[Record], batch_size: int) -> Curves:
    """The curves in the records of a log; `batch_size` is that of the run's recipe.

    Raises:
        TrainingError: there is no whole epoch, or a record lacks what it should say.
    """
    made = [record for record in records if record["kind"] == "steps"]
    with_steps = [record.get("epoch") for record in made]
    ended = [record for record in records if record["kind"] == "epoch" and record.get("epoch") in with_steps]
    if not made or not ended:
        raise TrainingError("the log of the run has no whole epoch, so there is nothing to report: was it deleted?")
    try:
        found = _read(made, ended, batch_size)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise TrainingError(f"the log of the run has a broken record: {type(error).__name__}: {error}") from None
    if not (np.isfinite(found.test_accuracy).all() and np.isfinite(found.accuracy).all()):
        raise TrainingError("the log of the run has an accuracy that is no number")
    return found


def _read(made: Sequence[Record], ended: Sequence[Record], batch_size: int) -> Curves:
    counts = [len(record["losses"]) for record in made]
    if counts != [len(record["accuracies"]) for record in made]:
        raise ValueError("as many losses as accuracies are expected")
    return Curves(
        loss=np.concatenate([np.array(record["losses"], np.float64) for record in made]),
        accuracy=np.concatenate([np.array(record["accuracies"], np.float64) for record in made]),
        epoch=np.repeat(np.array([record["epoch"] for record in made], np.int64), counts),
        seconds=np.repeat([_seconds(record, batch_size) / len(record["losses"]) for record in made], counts),
        epochs=np.array([record["epoch"] for record in ended], np.int64),
        test_loss=np.array([record["test_loss"] for record in ended], np.float64),
        test_accuracy=np.array([record["test_accuracy"] for record in ended], np.float64),
        images_per_second=float(np.median([record["images_per_second"] for record in made])),
        waiting=float(np.median([record["waiting"] for record in made])),
    )


def _seconds(record: Record, batch_size: int) -> float:
    """How long the steps of a record took; its speed says so where a log of an older maam does not."""
    found = record.get("seconds")
    return float(len(record["losses"]) * batch_size / record["images_per_second"] if found is None else found)
