"""The report of a run: its curves, figures and pictures, the command and the environment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maam import _io, plots
from maam.errors import TrainingError
from maam.training.evaluate import Evaluation
from maam.training.recipe import Recipe, unused_table
from maam.training.run_dir import CONFUSION_MATRIX, CURVES, FUSION, START, Record, RunFolder

Array = np.ndarray[Any, Any]


class Curves(NamedTuple):
    """The curves of a run, finished or not.

    Attributes:
        loss: training loss of each step, float64 (steps,).
        accuracy: training accuracy of each step, float64 (steps,).
        epoch: the epoch of each step, int64 (steps,).
        seconds: training time of each step, over all sessions, float64 (steps,).
        epochs: the numbers of the finished epochs, int64 (epochs,); 0, 1, ... unless lines of the log were lost.
        test_loss: loss after each finished epoch, float64 (epochs,).
        test_accuracy: accuracy after each finished epoch, float64 (epochs,).
        images_per_second: training speed, the median over the records.
        waiting: the share of the time spent waiting for data, the median over the records.
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

    def check_complete(self) -> None:
        """Check that no epoch is missing.

        Raises:
            TrainingError: an epoch is missing.
        """
        if self.epochs.tolist() != list(range(len(self.epochs))):
            raise TrainingError("the log of the run lacks epochs, because lines of it were lost")

    def of_epochs(self, values: Array) -> list[Array]:
        """Return the part of `values` (steps,) that belongs to each finished epoch."""
        return [values[self.epoch == index] for index in self.epochs]

    def means(self, values: Array) -> Array:
        """Return the mean of `values` (steps,) over the steps of each finished epoch, float64 (epochs,)."""
        return np.array([part.mean() for part in self.of_epochs(values)])

    @property
    def minutes(self) -> Array:
        """Training time of each finished epoch, without evaluation, float64 (epochs,)."""
        return np.array([part.sum() for part in self.of_epochs(self.seconds)]) / 60


def read_curves(records: Sequence[Record], batch_size: int) -> Curves:
    """Return the curves in the records of a log.

    Args:
        records: the records.
        batch_size: the batch size of the run's recipe.

    Raises:
        TrainingError: there is no finished epoch, or a record is broken.
    """
    made = [record for record in records if record["kind"] == "steps"]
    with_steps = [record.get("epoch") for record in made]
    ended = [record for record in records if record["kind"] == "epoch" and record.get("epoch") in with_steps]
    if not made or not ended:
        raise TrainingError(
            "the log of the run has no finished epoch; finish one, or restore log.jsonl if it was deleted"
        )
    try:
        found = _read(made, ended, batch_size)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise TrainingError(f"the log of the run has a broken record: {type(error).__name__}: {error}") from None
    if not (np.isfinite(found.test_accuracy).all() and np.isfinite(found.accuracy).all()):
        raise TrainingError("the log of the run has an accuracy that is not a number")
    return found


def _read(made: Sequence[Record], ended: Sequence[Record], batch_size: int) -> Curves:
    counts = [len(record["losses"]) for record in made]
    if counts != [len(record["accuracies"]) for record in made]:
        raise ValueError("expected as many losses as accuracies")
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
    """Return the time of the steps of a record; logs of earlier versions have only their speed."""
    found = record.get("seconds")
    return float(len(record["losses"]) * batch_size / record["images_per_second"] if found is None else found)


def write_report(folder: RunFolder, evaluation: Evaluation, class_names: tuple[str, ...]) -> Path:
    """Write report.md with its pictures, and results.json, to the folder of a run.

    Args:
        folder: the folder of a run with at least one finished epoch.
        evaluation: the final weights, evaluated on the test images, or on validation images that the recipe holds out.
        class_names: the name of each class.

    Returns:
        The path of report.md.

    Raises:
        MissingFrameworkError: matplotlib or scikit-learn is not installed.
        TrainingError: run.json or the log is broken, or no epoch is finished.
        OSError: a file cannot be written.
    """
    sessions = folder.sessions()
    title = sessions[-1]["recipe"]["model"]
    records = folder.log.records()
    curves = read_curves(records, folder.recipe().batch_size)
    fusion = [record["fusion"] for record in records if record["kind"] in (START, "epoch") and record.get("fusion")]
    draw_pictures(folder.path, curves, fusion, evaluation, class_names, title, folder.recipe().split)
    _io.write_text(folder.report, _text(title, sessions, folder.recipe(), curves, bool(fusion), evaluation))
    minutes = float(curves.minutes.sum())
    results = {"accuracy": evaluation.accuracy, "loss": evaluation.loss, **evaluation.macro(), "minutes": minutes}
    _io.write_text(folder.results, json.dumps(results, indent=1) + "\n")
    return folder.report


def draw_pictures(
    path: Path,
    curves: Curves,
    fusion: list[dict[str, list[float]]],
    evaluation: Evaluation,
    class_names: tuple[str, ...],
    title: str,
    split: str = "test",
) -> None:
    """Draw loss and accuracy curves, the confusion matrix and, if the model has any, the fusion weights."""
    steps = {"loss": curves.loss, "accuracy": curves.accuracy}
    epochs = {"loss": curves.test_loss, "accuracy": curves.test_accuracy}
    plots.draw_training(steps, epochs, path / CURVES, title, split)
    plots.draw_confusion_matrix(evaluation.labels, evaluation.predictions, class_names, path / CONFUSION_MATRIX, title)
    if fusion:
        plots.draw_fusion(fusion, path / FUSION, title, first=len(curves.epochs) + 1 - len(fusion))


def _text(
    title: str,
    sessions: list[dict[str, Any]],
    recipe: Recipe,
    curves: Curves,
    has_fusion: bool,
    evaluation: Evaluation,
) -> str:
    session, best, macro, split = sessions[-1], int(curves.test_accuracy.argmax()), evaluation.macro(), recipe.split
    highest = f"{curves.test_accuracy[best]:.2%}, epoch {curves.epochs[best] + 1}"
    rows = {
        "accuracy, last epoch": f"{evaluation.accuracy:.2%}",
        "top-5 accuracy": f"{evaluation.top(5):.2%}",
        "macro F1": f"{macro['f1']:.4f}",
        "macro precision": f"{macro['precision']:.4f}",
        "macro recall": f"{macro['recall']:.4f}",
        f"{split} loss": f"{evaluation.loss:.4f}",
        f"best epoch (chosen on the {split} images)": highest,
        f"{split} images": f"{len(evaluation.labels):,}",
        "training images a second (median)": f"{curves.images_per_second:.0f}",
        "waiting for data (median)": f"{curves.waiting:.2%}",
        "training time": f"{curves.minutes.sum():.1f} min",
    }
    if len(epochs := list(dict.fromkeys(one["recipe"]["epochs"] for one in sessions))) > 1:
        rows["epochs"] = f"{epochs[-1]} ({', then '.join(map(str, epochs[:-1]))} at first)"
    if session.get("start"):
        rows["start"] = session["start"]
    lines = [f"# {title}", "", "| figure | value |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    lines += ["", f"![loss and accuracy]({CURVES})", "", f"![confusion matrix]({CONFUSION_MATRIX})", ""]
    if has_fusion:
        lines += [f"![fusion weights]({FUSION})", ""]
    lines += [line for text in dict.fromkeys(map(_origin, sessions)) for line in (text, "")]
    return "\n".join([*lines, "```json", json.dumps(effective_fields(recipe), indent=1), "```", ""])


def effective_fields(recipe: Recipe) -> dict[str, Any]:
    """Return the fields of a recipe that had an effect on a run, without those that are off."""
    document = recipe.model_dump(mode="json", exclude={"presets", unused_table(recipe.data)})
    for table in ("optimizer", "schedule"):
        section = getattr(recipe, table)
        unused = type(section).unused_settings(section.name)
        document[table] = {name: value for name, value in document[table].items() if name not in unused}
    for table in ("initialization", "lookahead"):
        if getattr(recipe, table) == type(recipe).model_fields[table].default:
            del document[table]
    return {name: value for name, value in document.items() if name == "seed" or value not in (None, 0, {}, [])}


def _origin(session: dict[str, Any]) -> str:
    """Return a paragraph with the command, the device and the environment of a session."""
    environment = session.get("environment")
    versions = [f"{name} {version}" for name, version in environment.items()] if isinstance(environment, dict) else []
    said = {name: session.get(name, "unknown") for name in ("command", "framework", "device")}
    return f"Command: `{said['command']}`\n\n{said['framework']} on {said['device']}; {', '.join(versions)}"
