"""How a training run shows on the terminal: a bar there, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from maam.cli import consoles
from maam.training.log import Record
from maam.training.protocol import Observer


class Progress(Observer):
    """An observer of a run with a progress bar: loss, accuracy, images a second, time left.

    `advice` says, where a run is interrupted, what goes on with it.
    """

    def __init__(self, advice: str = "") -> None:
        self.advice = advice
        self.console = consoles.console()
        self.name = ""
        self.accuracy = ""
        self.started = False
        self._task: Any = None
        self._last = time.monotonic()
        self._total, self._begin, self._began = 0, 0, 0.0
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Bar(*columns, console=self.console, disable=not self.console.is_terminal)

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.stop()
        if kind is KeyboardInterrupt and self.started and self.advice:
            print(f"maam: interrupted; {self.advice}", file=sys.stderr)

    def named(self, name: str) -> Progress:
        """The same for the next of several runs, whose lines begin with its name."""
        self.name = f"{name}: "
        self.accuracy = ""
        if self._task is not None:
            self.bar.remove_task(self._task)
        return self

    def note(self, text: str) -> None:
        """Show it."""
        self.console.print(f"{self.name}{text}", highlight=False, markup=False)

    def start(self, step: int, steps: int) -> None:
        """The run stands at `step` of `steps`."""
        self.started = True
        self._total, self._begin, self._began = steps, step, time.monotonic()
        self._task = self.bar.add_task("training", total=steps, completed=step)

    def steps(self, record: Record) -> None:
        """Show how the last steps went."""
        loss, right = np.mean(record["losses"]), np.mean(record["accuracies"])
        text = f"{self.name}loss {loss:.4f}, accuracy {right:.2%}{self.accuracy}, "
        text += f"{record['images_per_second']:.0f} images/s"
        self.bar.update(self._task, completed=record["step"], description=text)
        if not self.console.is_terminal and time.monotonic() - self._last > consoles.SECONDS:
            self._last = time.monotonic()
            print(f"step {record['step']}: {text}{self._left(record['step'])}", flush=True)

    def _left(self, step: int) -> str:
        """The time left, at the rate of this session so far, such as ", 0:12:30 left"."""
        seconds = (time.monotonic() - self._began) * (self._total - step) / (step - self._begin)
        return f", {timedelta(seconds=round(seconds))} left"

    def epoch(self, record: Record) -> None:
        """Show how an epoch ended."""
        self.accuracy = f" (test {record['test_accuracy']:.2%})"
        text = f"{self.name}epoch {record['epoch'] + 1}: test accuracy {record['test_accuracy']:.2%}"
        text += f", test loss {record['test_loss']:.4f}, {record['seconds']:.0f} s"
        if self.console.is_terminal:
            self.bar.console.print(text, highlight=False)
        else:
            print(text, flush=True)
