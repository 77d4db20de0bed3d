"""The report of a finished run: figures, pictures, environment, command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maam import _io, plots
from maam.errors import TrainingError
from maam.training.evaluate import Evaluation
from maam.training.run_dir import Record, RunFolder

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


def write_report(folder: RunFolder, evaluation: Evaluation, class_names: tuple[str, ...]) -> Path:
    """Write report.md with its pictures, and results.json, into the folder of a run; returns the report's path.

    Args:
        folder: of a run that has made at least one epoch.
        evaluation: of the final weights on the test images.
        class_names: the name of each class.

    Raises:
        MissingFrameworkError: matplotlib or scikit-learn is not installed.
    """
    sessions = folder.sessions()
    title = sessions[-1]["recipe"]["model"]
    records = folder.log.records()
    curves = read_curves(records, folder.recipe().batch_size)
    fusion = [record["fusion"] for record in records if record["kind"] == "epoch" and record.get("fusion")]
    draw_pictures(folder.path, curves, fusion, evaluation, class_names, title)
    path = folder.path / "report.md"
    _io.write_text(path, _text(title, sessions, curves, bool(fusion), evaluation))
    minutes = float(curves.minutes.sum())
    results = {"accuracy": evaluation.accuracy, "loss": evaluation.loss, **evaluation.macro(), "minutes": minutes}
    _io.write_text(folder.path / "results.json", json.dumps(results, indent=1) + "\n")
    return path


def draw_pictures(
    path: Path,
    curves: Curves,
    fusion: list[dict[str, list[float]]],
    evaluation: Evaluation,
    class_names: tuple[str, ...],
    title: str,
) -> None:
    """Draw loss and accuracy curves, the confusion matrix and, where there are any, the fusion weights."""
    steps = {"loss": curves.loss, "accuracy": curves.accuracy}
    epochs = {"loss": curves.test_loss, "accuracy": curves.test_accuracy}
    plots.draw_training(steps, epochs, path / "curves.png", title)
    plots.draw_confusion_matrix(
        evaluation.labels, evaluation.predictions, class_names, path / "confusion_matrix.png", title
    )
    if fusion:
        plots.draw_fusion(fusion, path / "fusion.png", title)


def _text(title: str, sessions: list[dict[str, Any]], curves: Curves, has_fusion: bool, evaluation: Evaluation) -> str:
    session, best, macro = sessions[-1], int(curves.test_accuracy.argmax()), evaluation.macro()
    rows = {
        "accuracy, last epoch": f"{evaluation.accuracy:.2%}",
        "top-5 accuracy": f"{evaluation.top(5):.2%}",
        "macro F1": f"{macro['f1']:.4f}",
        "macro precision": f"{macro['precision']:.4f}",
        "macro recall": f"{macro['recall']:.4f}",
        "test loss": f"{evaluation.loss:.4f}",
        "best epoch (chosen on the test images)": f"{curves.test_accuracy[best]:.2%}, epoch {curves.epochs[best] + 1}",
        "test images": f"{len(evaluation.labels):,}",
        "training images a second (median)": f"{curves.images_per_second:.0f}",
        "waiting for data (median)": f"{curves.waiting:.2%}",
        "training time": f"{curves.minutes.sum():.1f} min",
    }
    if session.get("start"):
        rows["start"] = session["start"]
    lines = [f"# {title}", "", "| figure | value |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    lines += ["", "![loss and accuracy](curves.png)", "", "![confusion matrix](confusion_matrix.png)", ""]
    if has_fusion:
        lines += ["![fusion weights](fusion.png)", ""]
    lines += [line for text in dict.fromkeys(map(_origin, sessions)) for line in (text, "")]
    return "\n".join([*lines, "```json", json.dumps(session["recipe"], indent=1), "```", ""])


def _origin(session: dict[str, Any]) -> str:
    """By which command a session ran, and on what."""
    environment = session.get("environment")
    versions = [f"{name} {version}" for name, version in environment.items()] if isinstance(environment, dict) else []
    said = {name: session.get(name, "unknown") for name in ("command", "framework", "device")}
    return f"Command: `{said['command']}`\n\n{said['framework']} on {said['device']}; {', '.join(versions)}"
