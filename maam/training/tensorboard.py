"""Curves of a run for TensorBoard, written by the package tensorboard."""

from __future__ import annotations

import os
from typing import Any

from maam.errors import TrainingError, require
from maam.training.loop import Observer
from maam.training.run_dir import Record


class TensorBoard(Observer):
    """Observer that writes losses, accuracies, learning rates and fusion weights for TensorBoard.

    A resumed run adds a file. TensorBoard shows the latest value of a step.

    Args:
        folder: the folder of the event files; it is created at the first step.

    Raises:
        MissingFrameworkError: the package tensorboard is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        require("tensorboard", "tensorboard")
        self.folder = os.fspath(folder)
        self._writer: Any = None

    def start(self, step: int, steps: int) -> None:
        """Open the file."""
        from tensorboard.summary import Writer

        try:
            self._writer = Writer(self.folder)
        except OSError as error:
            raise TrainingError(f"{self.folder}: cannot be written: {error.strerror or error}") from None

    def steps(self, record: Record) -> None:
        """Write the loss and the accuracy of each step, and the learning rate."""
        first = record["step"] - len(record["losses"]) + 1
        for index, (loss, accuracy) in enumerate(zip(record["losses"], record["accuracies"], strict=True)):
            self._add("train/loss", loss, first + index)
            self._add("train/accuracy", accuracy, first + index)
        self._add("train/lr", record["lr"], record["step"])
        self._add("train/images_per_second", record["images_per_second"], record["step"])

    def epoch(self, record: Record) -> None:
        """Write the test figures and the weights of the branches, and flush the file."""
        self._add(f"{record['split']}/loss", record["test_loss"], record["step"])
        self._add(f"{record['split']}/accuracy", record["test_accuracy"], record["step"])
        for name, weights in record["fusion"].items():
            for index, weight in enumerate(weights):
                self._add(f"fusion/{name}/{index}", weight, record["step"])
        self._writer.flush()

    def _add(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)


class Observers(Observer):
    """An observer that passes every message on to several observers.

    Args:
        *observers: receive every message, in this order.
    """

    def __init__(self, *observers: Observer) -> None:
        self.observers = observers

    def note(self, text: str) -> None:
        """Pass on a message for the user."""
        for one in self.observers:
            one.note(text)

    def start(self, step: int, steps: int) -> None:
        """Pass on the first and the last step."""
        for one in self.observers:
            one.start(step, steps)

    def estimate(self, seconds: float) -> None:
        """Pass on the estimated time."""
        for one in self.observers:
            one.estimate(seconds)

    def steps(self, record: Record) -> None:
        """Pass on the record of the latest steps."""
        for one in self.observers:
            one.steps(record)

    def epoch(self, record: Record) -> None:
        """Pass on the record of an epoch."""
        for one in self.observers:
            one.epoch(record)
