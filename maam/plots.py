"""Pictures of training: loss and accuracy curves, confusion matrix."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maam._io import replacing
from maam.errors import require

Array = np.ndarray[Any, Any]
PathLike = str | os.PathLike[str]
_MOST_WITH_COUNTS, _MOST_WITH_NAMES = 30, 100
_LONG, _MOST_LETTERS, _CYCLE = 50, 100, 10
_LETTERS_IN_A_LINE = 70


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
    figure.suptitle(_plain(title))
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
            axis.plot(range(1, len(line) + 1), line, "o-", markersize=3, label=_plain(f"{name}, branch {branch}"))
    axis.set(xlabel="epoch", ylabel="fusion weight", title=_plain(title))
    axis.grid(alpha=0.3)
    axis.legend()
    _save(figure, path)


def draw_losses(training: Mapping[str, Array], test: Mapping[str, Array], path: PathLike, title: str) -> None:
    """Draw training and (dashed) test loss by epoch (runs, epochs) of models: the mean, and the range of the runs.

    On a logarithmic scale, because one run that goes astray would flatten all others.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    figure = _figure(7, 4.5)
    axis = figure.subplots()
    for index, name in enumerate(training):
        for curves, style, kind in ((training, "-", "training"), (test, "--", "test")):
            values = curves[name]
            epochs = range(1, values.shape[1] + 1)
            axis.plot(epochs, values.mean(0), style, color=f"C{index}", label=_plain(f"{name}, {kind}"))
            axis.fill_between(epochs, values.min(0), values.max(0), color=f"C{index}", alpha=0.2)
    axis.set(xlabel="epoch", ylabel="cross entropy", title=_plain(title), yscale="log")
    for which in ("major", "minor"):
        getattr(axis.yaxis, f"set_{which}_formatter")("{x:g}")
    axis.grid(alpha=0.3, which="both")
    if training:
        axis.legend(loc="upper right", ncols=2, fontsize="small")
    _save(figure, path)


def draw_step_losses(losses: Mapping[str, Array], path: PathLike, title: str) -> None:
    """Draw the training loss (steps,) of one run in two frameworks, averaged over some steps, and how far they part.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    figure = _figure(8, 5.5)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    one, other = losses.values()
    width = max(1, len(one) // 200)
    ends = np.arange(width, len(one) + 1, width)
    for (name, values), style in zip(losses.items(), ("-", "--"), strict=True):
        upper.plot(ends, _averages(values, width), style, label=_plain(name))
    lower.semilogy(np.arange(1, len(one) + 1), np.abs(one - other) + 1e-9, linewidth=0.4, color="tab:green")
    upper.set(ylabel=f"training loss, mean of {width} steps" if width > 1 else "training loss", title=_plain(title))
    lower.set(xlabel="step", ylabel="difference")
    for axis in (upper, lower):
        axis.grid(alpha=0.3)
    upper.legend()
    _save(figure, path)


def _averages(values: Array, width: int) -> Array:
    whole = len(values) // width * width
    averages: Array = values[:whole].reshape(-1, width).mean(1)
    return averages


def draw_accuracies(
    found: Mapping[str, Sequence[float]],
    paper: Mapping[str, float],
    path: PathLike,
    title: str,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Draw the accuracies (0 to 1) of several models: each run a point, its mean a bar, the paper's figure beside.

    `notes` are words below the names of models.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    figure = _figure(1.5 + 1.6 * len(found), 4.5)
    axis = figure.subplots()
    for place, (name, values) in enumerate(found.items()):
        axis.bar(place - 0.2, 100 * np.mean(values) if values else 0, 0.38, color="tab:blue")
        axis.plot([place - 0.2] * len(values), [100 * value for value in values], "k.", markersize=5)
        axis.bar(place + 0.2, 100 * paper.get(name, 0), 0.38, color="tab:orange")
        if not values:
            axis.text(place - 0.2, 1, "not run", rotation=90, ha="center", va="bottom")
    notes = notes or {}
    names = [name.replace(" (", "\n(") + (f"\n{notes[name]}" if name in notes else "") for name in found]
    axis.set_xticks(range(len(found)), [_plain(name) for name in names])
    axis.set(ylabel="test accuracy, %", ylim=(0, 100), title=_plain(title))
    axis.legend(axis.patches[:2], ["here", "the paper"])
    axis.grid(axis="y", alpha=0.3)
    _save(figure, path)


def draw_runs(training: Mapping[str, Array], test: Mapping[str, Array], path: PathLike, title: str) -> None:
    """Draw training (dashed) and test accuracy, 0 to 1, of runs by epoch (epochs,); those of a run in one colour.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    columns = 1 if max(map(len, test)) > _LONG else 2
    figure = _figure(8, 4.5 + 0.2 * len(test) / columns)
    axis = figure.subplots()
    for name, colour in zip(test, _colours(len(test)), strict=True):
        epochs = range(1, len(test[name]) + 1)
        axis.plot(epochs, 100 * test[name], "o-", markersize=3, color=colour, label=_plain(_shortened(name)))
        axis.plot(epochs, 100 * training[name], "--", linewidth=0.8, color=colour)
    axis.set(xlabel="epoch", ylabel="accuracy, %: test, and training (dashed)", title=_plain(title))
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize="small", ncols=columns)
    _save(figure, path)


def draw_confusion_matrix(labels: Array, predictions: Array, names: Sequence[str], path: PathLike, title: str) -> None:
    """Draw how often each class (labels and predictions: integers (N,)) was taken for each other.

    The counts stand in the cells of up to 30 classes, the names beside those of up to 100.

    Raises:
        MissingFrameworkError: matplotlib or scikit-learn is not installed.
    """
    require("sklearn", "train")
    from sklearn.metrics import ConfusionMatrixDisplay

    figure = _figure(6.5, 6)
    axis = figure.subplots()
    ConfusionMatrixDisplay.from_predictions(
        labels,
        predictions,
        labels=range(len(names)),
        display_labels=[_plain(name) for name in names],
        include_values=len(names) <= _MOST_WITH_COUNTS,
        ax=axis,
        cmap="Blues",
        xticks_rotation="vertical"
        if len(names) * max(map(len, names), default=0) > _LETTERS_IN_A_LINE
        else "horizontal",
        colorbar=len(names) > _MOST_WITH_COUNTS,
    )
    if len(names) > _MOST_WITH_NAMES:
        axis.set(xticks=[], yticks=[])
    axis.set_title(_plain(title))
    _save(figure, path)


def _shortened(name: str) -> str:
    """The end of a name that would be wider than a picture."""
    return name if len(name) <= _MOST_LETTERS else "..." + name[-_MOST_LETTERS:]


def _colours(count: int) -> list[Any]:
    """As many colours as are asked for, no two alike."""
    import matplotlib

    return (
        [f"C{index}" for index in range(count)]
        if count <= _CYCLE
        else list(matplotlib.colormaps["turbo"](np.linspace(0, 1, count)))
    )


def _plain(text: str) -> str:
    """Text in which no dollar sign starts a formula, and what is no text is written as escapes."""
    return text.encode(errors="backslashreplace").decode().replace("$", r"\$")


def _figure(width: float, height: float) -> Any:
    require("matplotlib", "train")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: PathLike) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
