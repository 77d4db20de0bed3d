"""Figures of training runs: curves, fusion weights, accuracies, confusion matrix. They need matplotlib."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maam._io import check_picture, replacing
from maam.errors import require

Array = np.ndarray[Any, Any]
PathLike = str | os.PathLike[str]
__all__ = [
    "draw_accuracies",
    "draw_attention",
    "draw_confusion_matrix",
    "draw_fusion",
    "draw_losses",
    "draw_runs",
    "draw_step_losses",
    "draw_training",
]
_MAX_COUNTS, _MAX_NAMES = 30, 100
"""The largest numbers of classes for a confusion matrix with counts, and with names."""
_LONG_NAME, _MAX_NAME_LENGTH = 50, 100
"""Lengths of names: longer ones need their own column in a legend, or are shortened."""
_CYCLE = 10
"""The number of colors in the color cycle of matplotlib."""
_LINE_LENGTH = 70
_MAX_MAPS = 6


def draw_training(
    steps: Mapping[str, Array], epochs: Mapping[str, Array], path: PathLike, title: str, split: str = "test"
) -> None:
    """Draw loss and accuracy of a run: of each training step, their mean over each epoch, and of the test images.

    Args:
        steps: "loss" and "accuracy" (0 to 1) of each training step, (steps,).
        epochs: "loss" and "accuracy" (0 to 1) on the test images after each epoch, (epochs,).
        path: the image to write; the suffix determines the format.
        title: the title.
        split: "test" or "validation", for the legend.

    Raises:
        MaamError: the suffix of `path` is unknown.
        MissingFrameworkError: matplotlib is not installed.

    Example:
        >>> import os, tempfile
        >>> import numpy as np
        >>> from maam import plots
        >>> steps = {"loss": np.linspace(2, 1, 10), "accuracy": np.linspace(0.1, 0.5, 10)}
        >>> epochs = {"loss": np.array([1.5, 1.1]), "accuracy": np.array([0.3, 0.5])}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "figure.png")
        ...     plots.draw_training(steps, epochs, path, "Example")
        ...     os.path.getsize(path) > 0
        True
    """
    figure = _figure(9, 4, path)
    for axis, name, scale in zip(figure.subplots(1, 2), ("loss", "accuracy"), (1, 100), strict=True):
        count, total = len(epochs[name]), len(steps[name])
        values = scale * steps[name]
        axis.plot(np.arange(1, total + 1) * count / total, values, color="tab:blue", linewidth=0.4, alpha=0.35)
        means = [part.mean() for part in np.array_split(values, count)]
        axis.plot(range(1, count + 1), means, "o-", color="tab:blue", markersize=3, label="training")
        axis.plot(range(1, count + 1), scale * epochs[name], "o-", color="tab:orange", markersize=3, label=split)
        axis.set(xlabel="epoch", ylabel="cross entropy" if name == "loss" else "accuracy, %")
        _mark_epochs(axis, 0, count)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(_plain(title))
    _save(figure, path)


def draw_fusion(weights: Sequence[Mapping[str, Sequence[float]]], path: PathLike, title: str, first: int = 1) -> None:
    """Draw the fusion weights of MAAM layers (softmax of alpha, equation 2 of the paper) after each epoch.

    Args:
        weights: for each epoch, the weights of the branches by the name of alpha.
        path: the image to write; the suffix determines the format.
        title: the title.
        first: the epoch of the first weights; 0 if they are those before training.

    Raises:
        MaamError: the suffix of `path` is unknown.
        MissingFrameworkError: matplotlib is not installed.

    Example:
        >>> import os, tempfile
        >>> import numpy as np
        >>> from maam import plots
        >>> weights = [{"agents.alpha": [0.3, 0.3, 0.4]}, {"agents.alpha": [0.2, 0.3, 0.5]}]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "figure.png")
        ...     plots.draw_fusion(weights, path, "Example")
        ...     os.path.getsize(path) > 0
        True
    """
    figure = _figure(6, 4, path)
    axis = figure.subplots()
    for name in weights[0]:
        values = np.array([epoch[name] for epoch in weights])
        for branch, line in enumerate(values.T):
            epochs = range(first, first + len(line))
            axis.plot(epochs, line, "o-", markersize=3, label=_plain(f"{name}, branch {branch}"))
    axis.set(xlabel="epoch", ylabel="fusion weight", title=_plain(title))
    _mark_epochs(axis, first, first + len(weights) - 1)
    axis.grid(alpha=0.3)
    axis.legend()
    _save(figure, path)


def draw_losses(training: Mapping[str, Array], test: Mapping[str, Array], path: PathLike, title: str) -> None:
    """Draw training and test loss (dashed) of models: mean and range of their runs, on a logarithmic scale.

    Args:
        training: the training loss of each model, (runs, epochs).
        test: the test loss of each model, (runs, epochs).
        path: the image to write; the suffix determines the format.
        title: the title.

    Raises:
        MaamError: the suffix of `path` is unknown.
        MissingFrameworkError: matplotlib is not installed.

    Example:
        >>> import os, tempfile
        >>> import numpy as np
        >>> from maam import plots
        >>> loss = {"MAAM": np.array([[2.0, 1.0], [2.2, 1.1]])}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "figure.png")
        ...     plots.draw_losses(loss, loss, path, "Example")
        ...     os.path.getsize(path) > 0
        True
    """
    figure = _figure(7, 4.5, path)
    axis = figure.subplots()
    for index, name in enumerate(training):
        for curves, style, kind in ((training, "-", "training"), (test, "--", "test")):
            values = curves[name]
            epochs = range(1, values.shape[1] + 1)
            marker = "o" if values.shape[1] == 1 else ""
            axis.plot(epochs, values.mean(0), marker + style, color=f"C{index}", label=_plain(f"{name}, {kind}"))
            axis.fill_between(epochs, values.min(0), values.max(0), color=f"C{index}", alpha=0.2)
    axis.set(xlabel="epoch", ylabel="cross entropy", title=_plain(title), yscale="log")
    _mark_epochs(axis, 1, max((values.shape[1] for values in training.values()), default=1))
    for which in ("major", "minor"):
        getattr(axis.yaxis, f"set_{which}_formatter")("{x:g}")
    axis.grid(alpha=0.3, which="both")
    if training:
        axis.legend(loc="upper right", ncols=2, fontsize="small")
    _save(figure, path)


def draw_step_losses(losses: Mapping[str, Array], path: PathLike, title: str) -> None:
    """Draw the training loss of the same run in two frameworks, and their difference.

    Args:
        losses: the training loss in each of two frameworks, (steps,). Long runs are averaged over several steps.
        path: the image to write; the suffix determines the format.
        title: the title.

    Raises:
        MaamError: the suffix of `path` is unknown.
        MissingFrameworkError: matplotlib is not installed.

    Example:
        >>> import os, tempfile
        >>> import numpy as np
        >>> from maam import plots
        >>> loss = np.linspace(2, 1, 100)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "figure.png")
        ...     plots.draw_step_losses({"PyTorch": loss, "MindSpore": loss + 1e-6}, path, "Example")
        ...     os.path.getsize(path) > 0
        True
    """
    figure = _figure(8, 5.5, path)
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
    """Draw the accuracies of models as bars (mean) and points (runs), next to the values in a paper.

    Args:
        found: the accuracies (0 to 1) of the runs of each model; an empty sequence for models that were not run.
        paper: the accuracy in the paper by model.
        path: the image to write; the suffix determines the format.
        title: the title.
        notes: text below the names of models.

    Raises:
        MaamError: the suffix of `path` is unknown.
        MissingFrameworkError: matplotlib is not installed.

    Example:
        >>> import os, tempfile
        >>> import numpy as np
        >>> from maam import plots
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "figure.png")
        ...     plots.draw_accuracies({"MAAM": [0.87, 0.88]}, {"MAAM": 0.87}, path, "Example")
        ...     os.path.getsize(path) > 0
        True
    """
    figure = _figure(1.5 + 1.6 * len(found), 4.5, path)
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


def draw_runs(
    training: Mapping[str, Array], test: Mapping[str, Array], path: PathLike, title: str, split: str = "test"
) -> None:
    """Draw training (dashed) and test accuracy of several runs by epoch.

    Args:
        training: the training accuracy (0 to 1) of each run, (epochs,).
        test: the test accuracy (0 to 1) of each run, (epochs,).
        path: the image to write; the suffix determines the format.
        title: the title.
        split: "test", "validation" or both, for the label of the axis.

    Raises:
        MaamError: the suffix of `path` is unknown.
        MissingFrameworkError: matplotlib is not installed.

    Example:
        >>> import os, tempfile
        >>> import numpy as np
        >>> from maam import plots
        >>> training, test = {"run": np.array([0.4, 0.6])}, {"run": np.array([0.5, 0.6])}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "figure.png")
        ...     plots.draw_runs(training, test, path, "Example")
        ...     os.path.getsize(path) > 0
        True
    """
    columns = 1 if max(map(len, test)) > _LONG_NAME else 2
    figure = _figure(8, 4.5 + 0.2 * len(test) / columns, path)
    axis = figure.subplots()
    for name, color in zip(test, _colors(len(test)), strict=True):
        epochs = range(1, len(test[name]) + 1)
        axis.plot(epochs, 100 * test[name], "o-", markersize=3, color=color, label=_plain(_shortened(name)))
        style = "x--" if len(epochs) == 1 else "--"
        axis.plot(epochs, 100 * training[name], style, linewidth=0.8, markersize=4, color=color)
    axis.set(xlabel="epoch", ylabel=f"accuracy, %: {split}, and training (dashed)", title=_plain(title))
    _mark_epochs(axis, 1, max(map(len, test.values())))
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize="small", ncols=columns)
    _save(figure, path)


def draw_confusion_matrix(labels: Array, predictions: Array, names: Sequence[str], path: PathLike, title: str) -> None:
    """Draw a confusion matrix, with counts for up to 30 classes and names for up to 100.

    Args:
        labels: the labels of the images, integers, (N,).
        predictions: the predicted classes, integers, (N,).
        names: the names of the classes.
        path: the image to write; the suffix determines the format.
        title: the title.

    Raises:
        MissingFrameworkError: matplotlib or scikit-learn is not installed.

    Example:
        >>> import os, tempfile
        >>> import numpy as np
        >>> from maam import plots
        >>> labels, predictions = np.array([0, 1, 1]), np.array([0, 1, 0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "figure.png")
        ...     plots.draw_confusion_matrix(labels, predictions, ["cat", "dog"], path, "Example")
        ...     os.path.getsize(path) > 0
        True
    """
    require("sklearn", "train")
    from sklearn.metrics import ConfusionMatrixDisplay

    figure = _figure(6.5, 6, path)
    axis = figure.subplots()
    ConfusionMatrixDisplay.from_predictions(
        labels,
        predictions,
        labels=range(len(names)),
        display_labels=[_plain(name) for name in names],
        include_values=len(names) <= _MAX_COUNTS,
        ax=axis,
        cmap="Blues",
        xticks_rotation="vertical" if len(names) * max(map(len, names), default=0) > _LINE_LENGTH else "horizontal",
        colorbar=len(names) > _MAX_COUNTS,
    )
    if len(names) > _MAX_NAMES:
        axis.set(xticks=[], yticks=[])
    axis.set_title(_plain(title))
    _save(figure, path)


def draw_attention(rows: Sequence[tuple[Array, Mapping[str, Array]]], path: PathLike, title: str) -> None:
    """Draw images and the attention maps of their gates, over the image.

    At most six gates are drawn, from the first to the last at equal distances. Each map has its own color scale.

    Args:
        rows: for each image, its pixels (H, W, 3) or (H, W, 1) in [0, 1] and the maps (h, w) by the name of the gate.
        path: the image to write; the suffix determines the format.
        title: the title.

    Raises:
        MaamError: the suffix of `path` is unknown.
        MissingFrameworkError: matplotlib is not installed.

    Example:
        >>> import os, tempfile
        >>> import numpy as np
        >>> from maam import plots
        >>> rows = [(np.zeros((8, 8, 3)), {"gate": np.eye(4)})]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "figure.png")
        ...     plots.draw_attention(rows, path, "Example")
        ...     os.path.getsize(path) > 0
        True
    """
    names = list(rows[0][1])
    chosen = [names[index] for index in sorted({int(i) for i in np.linspace(0, len(names) - 1, _MAX_MAPS).round()})]
    figure = _figure(2.2 * (1 + len(chosen)), 2.4 * len(rows) + 0.4, path)
    axes = figure.subplots(len(rows), 1 + len(chosen), squeeze=False)
    for line, (image, maps) in zip(axes, rows, strict=True):
        height, width = image.shape[:2]
        for axis in line:
            axis.imshow(image, extent=(0, width, height, 0))
            axis.set_axis_off()
        for axis, name in zip(line[1:], chosen, strict=True):
            shown = axis.imshow(maps[name], extent=(0, width, height, 0), cmap="inferno", alpha=0.7)
            figure.colorbar(shown, ax=axis, shrink=0.7, format="%.4g")
    for axis, name in zip(axes[0][1:], chosen, strict=True):
        size = "x".join(map(str, rows[0][1][name].shape))
        axis.set_title(f"{_plain(_shortened(name))}\n{size}", fontsize=7)
    figure.suptitle(_plain(title))
    _save(figure, path)


def _mark_epochs(axis: Any, first: int, last: int) -> None:
    """Put ticks at whole epochs only, and limit the axis to the epochs, with a margin on both sides."""
    from matplotlib.ticker import MaxNLocator

    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    margin = max(0.04 * (last - first), 0.1)
    axis.set_xlim(first - margin, last + margin)


def _shortened(name: str) -> str:
    """Return the end of a name that is too long for the figure."""
    return name if len(name) <= _MAX_NAME_LENGTH else "..." + name[-_MAX_NAME_LENGTH:]


def _colors(count: int) -> list[Any]:
    """Return `count` different colors."""
    import matplotlib

    return (
        [f"C{index}" for index in range(count)]
        if count <= _CYCLE
        else list(matplotlib.colormaps["turbo"](np.linspace(0, 1, count)))
    )


def _plain(text: str) -> str:
    """Return text with escaped dollar signs, which start formulas, and backslash escapes for undecodable bytes."""
    return text.encode(errors="backslashreplace").decode().replace("$", r"\$")


def _figure(width: float, height: float, path: PathLike) -> Any:
    """Return an empty figure, after checking that it can be written to `path`."""
    check_picture(path)
    require("matplotlib", "train")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: PathLike) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
