"""Pictures of training: loss and accuracy curves, confusion matrix."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from maam.errors import require
from maam.files import replacing

Array = np.ndarray[Any, Any]
PathLike = str | os.PathLike[str]


def draw_curves(losses: Sequence[float], accuracies: Sequence[float], path: PathLike, title: str) -> None:
    """Draw the training loss of every step, and the test accuracy (0 to 1) after every epoch.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    figure = _figure(7.5, 4.5)
    axis = figure.subplots()
    steps = np.arange(1, len(losses) + 1) * len(accuracies) / len(losses)
    axis.semilogy(steps, losses, color="tab:blue", linewidth=0.8, label="training loss, a step")
    axis.set(xlabel="epoch", ylabel="cross entropy", title=title)
    right = axis.twinx()
    right.plot(range(1, len(accuracies) + 1), [100 * a for a in accuracies], "o-", color="tab:orange", markersize=3)
    right.set_ylabel("test accuracy, %", color="tab:orange")
    axis.legend(loc="center right")
    _save(figure, path)


def draw_confusion_matrix(labels: Array, predictions: Array, names: Sequence[str], path: PathLike, title: str) -> None:
    """Draw how often each class (labels and predictions: integers (N,)) was taken for each other.

    Raises:
        MissingFrameworkError: matplotlib or scikit-learn is not installed.
    """
    require("sklearn", "train")
    from sklearn.metrics import ConfusionMatrixDisplay

    figure = _figure(6.5, 6)
    axis = figure.subplots()
    ConfusionMatrixDisplay.from_predictions(
        labels, predictions, labels=range(len(names)), display_labels=names, ax=axis, cmap="Blues", colorbar=False
    )
    axis.set_title(title)
    _save(figure, path)


def _figure(width: float, height: float) -> Any:
    require("matplotlib", "train")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: PathLike) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
