"""Pictures of training: loss and accuracy curves, confusion matrix."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maam.errors import require
from maam.files import replacing

Array = np.ndarray[Any, Any]
PathLike = str | os.PathLike[str]


def draw_training(steps: Mapping[str, Array], epochs: Mapping[str, Array], path: PathLike, title: str) -> None:
    """Draw loss and accuracy (0 to 1): of each training step (faint, and its mean an epoch), of each epoch's test.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    figure = _figure(9, 4)
    for axis, name, scale in zip(figure.subplots(1, 2), ("loss", "accuracy"), (1, 100), strict=True):
        count, total = len(epochs[name]), len(steps[name])
        values = scale * steps[name]
        axis.plot(np.arange(1, total + 1) * count / total, values, color="tab:blue", linewidth=0.4, alpha=0.35)
        means = [part.mean() for part in np.array_split(values, count)]
        axis.plot(range(1, count + 1), means, color="tab:blue", label="training")
        axis.plot(range(1, count + 1), scale * epochs[name], "o-", color="tab:orange", markersize=3, label="test")
        axis.set(xlabel="epoch", ylabel="cross entropy" if name == "loss" else "accuracy, %")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(title)
    _save(figure, path)


def draw_fusion(weights: Sequence[Mapping[str, Sequence[float]]], path: PathLike, title: str) -> None:
    """Draw the fusion weights (softmax of the scalars of equation 2) after each epoch, by the scalars' name.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    figure = _figure(6, 4)
    axis = figure.subplots()
    for name in weights[0]:
        values = np.array([epoch[name] for epoch in weights])
        for branch, line in enumerate(values.T):
            axis.plot(range(1, len(line) + 1), line, "o-", markersize=3, label=f"{name}, branch {branch}")
    axis.set(xlabel="epoch", ylabel="fusion weight", title=title)
    axis.grid(alpha=0.3)
    axis.legend()
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
