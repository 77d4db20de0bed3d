"""The report of a finished run: figures, pictures, environment, command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from maam import files, plots
from maam.errors import TrainingError
from maam.training.evaluation import Evaluation
from maam.training.folder import RunFolder
from maam.training.log import Record


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
    draw_pictures(folder.path, records, evaluation, class_names, title)
    path = folder.path / "report.md"
    files.write_text(path, _text(title, sessions, records, evaluation))
    minutes = sum(record["seconds"] for record in records if record["kind"] == "epoch") / 60
    results = {"accuracy": evaluation.accuracy, "loss": evaluation.loss, **evaluation.macro(), "minutes": minutes}
    files.write_text(folder.path / "results.json", json.dumps(results, indent=1) + "\n")
    return path


def draw_pictures(
    path: Path, records: list[Record], evaluation: Evaluation, class_names: tuple[str, ...], title: str
) -> None:
    """Draw loss and accuracy curves, the confusion matrix and, where there are any, the fusion weights."""
    steps, epochs = curves(records)
    plots.draw_training(steps, epochs, path / "curves.png", title)
    plots.draw_confusion_matrix(
        evaluation.labels, evaluation.predictions, class_names, path / "confusion_matrix.png", title
    )
    if fusion := [record["fusion"] for record in records if record["kind"] == "epoch" and record["fusion"]]:
        plots.draw_fusion(fusion, path / "fusion.png", title)


def curves(records: list[Record]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Loss and accuracy of each step, and test loss and accuracy of each epoch, as arrays.

    Raises:
        TrainingError: there are none.
    """
    made = [record for record in records if record["kind"] == "steps"]
    ended = [record for record in records if record["kind"] == "epoch"]
    if not made or not ended:
        raise TrainingError("the log of the run has no whole epoch, so there is nothing to report: was it deleted?")
    steps = {
        "loss": np.concatenate([np.array(record["losses"]) for record in made]),
        "accuracy": np.concatenate([np.array(record["accuracies"]) for record in made]),
    }
    epochs = {name: np.array([record[f"test_{name}"] for record in ended]) for name in ("loss", "accuracy")}
    return steps, epochs


def _text(title: str, sessions: list[dict[str, Any]], records: list[Record], evaluation: Evaluation) -> str:
    session = sessions[-1]
    ended = [record for record in records if record["kind"] == "epoch"]
    made = [record for record in records if record["kind"] == "steps"]
    best = max(ended, key=lambda record: record["test_accuracy"])
    macro = evaluation.macro()
    speed = np.median([record["images_per_second"] for record in made])
    waiting = np.median([record["waiting"] for record in made])
    rows = {
        "accuracy, last epoch": f"{evaluation.accuracy:.2%}",
        "top-5 accuracy": f"{evaluation.top(5):.2%}",
        "macro F1": f"{macro['f1']:.4f}",
        "macro precision": f"{macro['precision']:.4f}",
        "macro recall": f"{macro['recall']:.4f}",
        "test loss": f"{evaluation.loss:.4f}",
        "best epoch (chosen on the test images)": f"{best['test_accuracy']:.2%}, epoch {best['epoch'] + 1}",
        "test images": f"{len(evaluation.labels):,}",
        "training images a second (median)": f"{speed:.0f}",
        "waiting for data (median)": f"{waiting:.2%}",
        "training time": f"{sum(record['seconds'] for record in ended) / 60:.1f} min",
    }
    if session.get("start"):
        rows["start"] = session["start"]
    lines = [f"# {title}", "", "| figure | value |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    lines += ["", "![loss and accuracy](curves.png)", "", "![confusion matrix](confusion_matrix.png)", ""]
    if ended[-1]["fusion"]:
        lines += ["![fusion weights](fusion.png)", ""]
    lines += [line for text in dict.fromkeys(map(_origin, sessions)) for line in (text, "")]
    return "\n".join([*lines, "```json", json.dumps(session["recipe"], indent=1), "```", ""])


def _origin(session: dict[str, Any]) -> str:
    """By which command a session ran, and on what."""
    versions = ", ".join(f"{name} {version}" for name, version in session["environment"].items())
    return f"Command: `{session['command']}`\n\n{session['framework']} on {session['device']}; {versions}"
