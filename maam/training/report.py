"""The report of a finished run: figures, pictures, environment, command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from maam import files, plots
from maam.training.curves import Curves, read_curves
from maam.training.evaluation import Evaluation
from maam.training.folder import RunFolder


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
    files.write_text(path, _text(title, sessions, curves, bool(fusion), evaluation))
    minutes = float(curves.minutes.sum())
    results = {"accuracy": evaluation.accuracy, "loss": evaluation.loss, **evaluation.macro(), "minutes": minutes}
    files.write_text(folder.path / "results.json", json.dumps(results, indent=1) + "\n")
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
