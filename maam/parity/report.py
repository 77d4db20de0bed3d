"""What parity found: rows of a table, as text, as JSON, and as a verdict."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from maam._io import replacing
from maam.errors import require
from maam.tolerance import LAYER, Difference


class Verdict(str, Enum):
    """PASS and FAIL, and three ways of not having been judged."""

    PASS = "pass"
    FAIL = "FAIL"
    NOT_RUN = "NOT RUN"
    NOT_AVAILABLE = "NOT AVAILABLE"
    NOT_APPLICABLE = "NOT APPLICABLE"


@dataclass(frozen=True)
class Row:
    """One stage for one runner.

    Attributes:
        stage: what was compared.
        runner: framework and mode.
        verdict: how it came out.
        bound: what was allowed.
        absolute: worst absolute difference.
        relative: worst difference as a share of the tensor's largest value.
        layer: canonical name of the first layer (or parameter) that differs; empty where none does.
        note: what else there is to say: why a stage did not run, how many elements were left out.
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
    """The difference at one layer, for the picture: `absolute` and the value's largest magnitude `largest`."""

    runner: str
    mode: str
    layer: str
    absolute: float
    largest: float


@dataclass
class Report:
    """All rows, and the differences along the depth of the network."""

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
        """Whether nothing failed and something was compared; so says `bool(report)` too."""
        return not self.failures and any(row.verdict is Verdict.PASS for row in self.rows)

    def __bool__(self) -> bool:
        return self.passed

    @property
    def complete(self) -> bool:
        """Whether it passed and every stage ran."""
        return self.passed and all(row.verdict is not Verdict.NOT_RUN for row in self.rows)

    @property
    def first_difference(self) -> str:
        """The first layer that differs, by the stage that tells it most exactly; empty where none does."""
        return next((row.layer for row in self.failures if row.layer), "")

    def lines(self) -> Iterator[tuple[str, str, str, str, str, str, str]]:
        """The table's cells: stage, runner, absolute, relative, bound, verdict, remarks."""
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
        """The table in Markdown."""
        head = ("stage", "runner", "worst abs", "worst rel", "bound", "verdict", "remarks")
        body = [f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *self.lines())]
        return "\n".join(body) + "\n"

    def to_json(self) -> str:
        """Everything, as JSON; numbers that do not exist are null."""
        document = {
            "title": self.title,
            "passed": self.passed,
            "first_difference": self.first_difference,
            "environment": self.environment,
            "rows": [_plain(asdict(row)) for row in self.rows],
            "depth": [_plain(asdict(point)) for point in self.depth],
        }
        return json.dumps(document, indent=1) + "\n"


def row(stage: str, runner: str, found: Difference, bound: object, layer: str = "", note: str = "") -> Row:
    """A row judged by how much of the bound was used up."""
    verdict = Verdict.PASS if found.used <= 1 else Verdict.FAIL
    name = layer if verdict is Verdict.FAIL else ""
    return Row(stage, runner, verdict, str(bound), found.absolute, found.relative, name, note)


def not_run(stages: Iterable[str], runner: str, why: str) -> list[Row]:
    """A NOT RUN row for each stage."""
    return [Row(stage, runner, Verdict.NOT_RUN, note=why) for stage in stages]


def _number(value: float) -> str:
    if math.isnan(value):
        return ""
    return "0" if value == 0 else f"{value:.1e}"


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


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
