"""The report of a parity check: rows of a table, as Markdown, as JSON, as a plot, and as a verdict."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from maam._io import check_picture, replacing
from maam.errors import require
from maam.tolerance import LAYER, Difference


class Verdict(str, Enum):
    """The outcome of a row: PASS, FAIL, or the reason why nothing was compared.

    Attributes:
        PASS: the difference is inside the bound.
        FAIL: the difference is outside the bound.
        NOT_RUN: the stage could not run.
        NOT_AVAILABLE: the framework has no kernel for this dtype on this device.
        NOT_APPLICABLE: the stage has no meaning for this spec.

    Example:
        >>> from maam.parity import Verdict
        >>> Verdict("NOT RUN")
        <Verdict.NOT_RUN: 'NOT RUN'>
    """

    PASS = "pass"
    FAIL = "FAIL"
    NOT_RUN = "NOT RUN"
    NOT_AVAILABLE = "NOT AVAILABLE"
    NOT_APPLICABLE = "NOT APPLICABLE"


@dataclass(frozen=True)
class Row:
    """The result of one stage for one runner.

    Attributes:
        stage: the name of the comparison.
        runner: the name of the framework and its mode.
        verdict: the outcome.
        bound: the bound as text.
        absolute: the largest absolute difference; NaN if there is none.
        relative: the largest difference as a share of the tensor's largest value; NaN if there is none.
        layer: the canonical name of the first layer or parameter that differs; empty if none does.
        note: a remark, such as the reason why a stage did not run.

    Example:
        >>> from maam.parity import Row, Verdict
        >>> Row("logits, eval", "torch", Verdict.FAIL, absolute=0.5, layer="agents.0.conv1").layer
        'agents.0.conv1'
    """

    stage: str
    runner: str
    verdict: Verdict
    bound: str = ""
    absolute: float = math.nan
    relative: float = math.nan
    layer: str = ""
    note: str = ""


@dataclass(frozen=True)
class Depth:
    """The difference at one layer, for the plot over the depth of the network.

    Attributes:
        runner: the name of the runner.
        mode: "eval" or "train".
        layer: the canonical name of the layer.
        absolute: the largest absolute difference.
        largest: the largest absolute value of the layer's output.
    """

    runner: str
    mode: str
    layer: str
    absolute: float
    largest: float

    @property
    def share(self) -> float:
        """The difference as a share of the layer's largest value, if that is above 1."""
        return self.absolute / max(self.largest, 1.0)


class Findings(NamedTuple):
    """The results of one stage.

    Attributes:
        rows: a row for each comparison.
        depth: the differences along the depth of the network, from the stage that measures them.
    """

    rows: Sequence[Row]
    depth: Sequence[Depth] = ()


@dataclass
class Report:
    """The rows of all stages, as a table, as JSON, and as a verdict; true if it passed.

    Attributes:
        title: the name of the model.
        rows: the rows in the order of the stages.
        depth: the differences along the depth of the network.
        environment: versions of the system and of the frameworks.

    Example:
        >>> from maam.parity import Report, Row, Verdict
        >>> report = Report("net", [Row("logits, eval", "torch", Verdict.PASS)])
        >>> report.passed, report.complete, report.first_difference
        (True, True, '')
    """

    title: str
    rows: list[Row] = field(default_factory=list)
    depth: list[Depth] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def failures(self) -> list[Row]:
        """The rows that failed."""
        return [row for row in self.rows if row.verdict is Verdict.FAIL]

    @property
    def passed(self) -> bool:
        """Whether at least one row passed and none failed."""
        return not self.failures and any(row.verdict is Verdict.PASS for row in self.rows)

    def __bool__(self) -> bool:
        return self.passed

    @property
    def complete(self) -> bool:
        """Whether the report passed and every stage ran."""
        return self.passed and all(row.verdict is not Verdict.NOT_RUN for row in self.rows)

    @property
    def first_difference(self) -> str:
        """The first layer that differs, from the first failed row that names one; empty if none does.

        The stages run in such an order that the first of them locates a fault most exactly.
        """
        return next((row.layer for row in self.failures if row.layer), "")

    def lines(self) -> Iterator[tuple[str, str, str, str, str, str, str]]:
        """Yield the cells of each row: stage, runner, absolute, relative, bound, verdict, remarks."""
        for row in self.rows:
            remarks = "; ".join(filter(None, (f"first at {row.layer}" if row.layer else "", row.note)))
            yield (
                row.stage,
                row.runner,
                _number(row.absolute),
                _number(row.relative),
                row.bound,
                row.verdict.value,
                remarks,
            )

    def to_markdown(self) -> str:
        """Return the table in Markdown."""
        head = ("stage", "runner", "worst abs", "worst rel", "bound", "verdict", "remarks")
        body = [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *self.lines())]
        return "\n".join(body) + "\n"

    def document(self) -> dict[str, Any]:
        """Return the report as a document for JSON; NaN and infinity are None."""
        return {
            "title": self.title,
            "passed": self.passed,
            "first_difference": self.first_difference,
            "environment": self.environment,
            "rows": [_plain(asdict(row)) for row in self.rows],
            "depth": [_plain(asdict(point)) for point in self.depth],
        }

    def to_json(self) -> str:
        """Return the whole report as JSON; NaN and infinity become null."""
        return json.dumps(self.document(), indent=1) + "\n"


def row(stage: str, runner: str, found: Difference, bound: object, layer: str = "", note: str = "") -> Row:
    """Return a row that passes if the difference is inside its bound; `layer` is kept only if it fails."""
    verdict = Verdict.PASS if found.used <= 1 else Verdict.FAIL
    name = layer if verdict is Verdict.FAIL else ""
    return Row(stage, runner, verdict, str(bound), found.absolute, found.relative, name, note)


def skip(stages: Iterable[str], runners: Iterable[str], note: str, verdict: Verdict = Verdict.NOT_RUN) -> list[Row]:
    """Return a row without a comparison for each runner and stage."""
    names = list(stages)
    return [Row(stage, runner, verdict, note=note) for runner in runners for stage in names]


def _number(value: float) -> str:
    if math.isnan(value):
        return ""
    return "0" if value == 0 else f"{value:.1e}"


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


_MODES = ("eval", "train")
SMALLEST = 1e-9
"""The smallest difference that the plots over the depth show; smaller ones are drawn at the bottom."""


def draw_depth(report: Report, path: str | os.PathLike[str]) -> None:
    """Plot the largest difference of each layer's output from the reference, for each runner and mode.

    Each layer gets the reference's input, so the differences do not add up along the network.

    Args:
        report: a report of the stage "layers".
        path: the file to write; its suffix selects the format.

    Raises:
        MaamError: the suffix of `path` is unknown.
        MissingFrameworkError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    check_picture(path)
    require("matplotlib", "train")
    from matplotlib.figure import Figure

    layers = list(dict.fromkeys(point.layer for point in report.depth))
    figure = Figure(figsize=(max(8.0, 0.24 * len(layers)), 7.5), layout="constrained")
    axes = figure.subplots(len(_MODES), 1, sharex=True, sharey=True)
    for axis, mode in zip(axes, _MODES, strict=True):
        _draw_mode(axis, [point for point in report.depth if point.mode == mode], layers, mode)
    axes[-1].set_xticks(range(len(layers)), [layer or "the whole model" for layer in layers], rotation=90, fontsize=7)
    axes[-1].set_xlabel("layers in running order, each container after its parts; 0 is drawn at the bottom")
    figure.suptitle(f"{report.title}: difference of each layer from the float64 reference", parse_math=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _draw_mode(axis: Any, points: list[Depth], layers: list[str], mode: str) -> None:
    for runner, marker in zip(dict.fromkeys(point.runner for point in points), "osv^D", strict=False):
        own = [point for point in points if point.runner == runner]
        x = [layers.index(point.layer) for point in own]
        y = [max(point.share, SMALLEST) for point in own]
        axis.semilogy(x, y, marker, markersize=4, label=runner, alpha=0.8)
    axis.axhline(LAYER.absolute, color="tab:red", linewidth=1, linestyle="--", label="bound")
    axis.set_ylabel(f"{mode} mode: largest difference\n(share of the largest value, if above 1)")
    top = max([LAYER.absolute, *(point.absolute for point in points)])
    axis.set_ylim(SMALLEST / 2, 30 * top)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="upper left", ncols=5)
