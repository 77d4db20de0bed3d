"""The picture of a parity run: the difference along the depth of the network."""

from __future__ import annotations

import os
from typing import Any

from maam.errors import require
from maam.files import replacing
from maam.parity.bounds import LAYER
from maam.parity.report import Depth, Report

_MODES = ("eval", "train")
_LEAST = 1e-9


def draw_depth(report: Report, path: str | os.PathLike[str]) -> None:
    """Draw the worst difference of each layer's output, given the referee's input, for each runner and mode.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    require("matplotlib", "train")
    from matplotlib.figure import Figure

    layers = list(dict.fromkeys(point.layer for point in report.depth))
    figure = Figure(figsize=(max(8.0, 0.24 * len(layers)), 7.5), layout="constrained")
    axes = figure.subplots(len(_MODES), 1, sharex=True, sharey=True)
    for axis, mode in zip(axes, _MODES, strict=True):
        _draw_mode(axis, [point for point in report.depth if point.mode == mode], layers, mode)
    axes[-1].set_xticks(range(len(layers)), [layer or "the whole" for layer in layers], rotation=90, fontsize=7)
    axes[-1].set_xlabel("layer, in running order; a container follows its parts; 0 is drawn at the bottom")
    figure.suptitle(f"{report.title}: difference of each layer from the float64 referee", parse_math=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _draw_mode(axis: Any, points: list[Depth], layers: list[str], mode: str) -> None:
    for runner, marker in zip(dict.fromkeys(point.runner for point in points), "osv^D", strict=False):
        own = [point for point in points if point.runner == runner]
        x = [layers.index(point.layer) for point in own]
        y = [max(point.absolute / max(point.largest, 1.0), _LEAST) for point in own]
        axis.semilogy(x, y, marker, markersize=4, label=runner, alpha=0.8)
    axis.axhline(LAYER.absolute, color="tab:red", linewidth=1, linestyle="--", label="bound")
    axis.set_ylabel(f"{mode} mode: worst difference\n(share of the largest value, if above 1)")
    top = max([LAYER.absolute, *(point.absolute for point in points)])
    axis.set_ylim(_LEAST / 2, 30 * top)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="upper left", ncols=5)
