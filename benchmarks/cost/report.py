"""Markdown tables and pictures of the measurements."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.cost.measure import GROWTH, MATRIX_OPERATIONS, PRODUCT, Result
from maam._io import replacing
from maam.errors import require
from maam.training.compare import markdown_table

BASE_KIND = "torch inference fp32"
MIB = 2**20
LEAST_SHARE = 0.01
_OFFSETS = (
    *((7, 0, "left"), (-7, 0, "right"), (7, 8, "left"), (7, -8, "left"), (-7, 8, "right"), (-7, -8, "right")),
    *((0, 10, "center"), (0, -10, "center"), (-7, 17, "right"), (-7, -17, "right"), (7, 17, "left"), (7, -17, "left")),
)
"""Offsets of a label from its point, in points, in order of preference, with the alignment."""


def times_table(result: Result) -> str:
    """Return the CPU times, relative to the first case's plain inference; empty if there are no times."""
    kinds = list(dict.fromkeys(kind for case, kind in result.times if case != PRODUCT))
    cases = list(dict.fromkeys(case for case, _ in result.times if case != PRODUCT))
    if not kinds:
        return ""
    base_kind = BASE_KIND if BASE_KIND in kinds else kinds[0]
    base = result.seconds(cases[0], base_kind)
    head = ("case", "parameters", "MACs", "on disk, MiB", "saved in training, MiB per image", *kinds)
    rows = [
        (case, *_facts(result.facts.get(case)), *(_number(result.seconds(case, kind) / base) for kind in kinds))
        for case in cases
    ]
    unit = f"CPU time, batch {result.batch}; {cases[0]}, {base_kind} = 1 ({1000 * base:.2f} ms)."
    return f"{unit}\n\n{_table(head, rows)}"


def limits_table(result: Result) -> str:
    """Return the rate of matrix products in the same process, and the share of it that each case reaches.

    Cases below `LEAST_SHARE` of the rate are limited by memory and left out.
    """
    rates = {
        precision: MATRIX_OPERATIONS / result.seconds(PRODUCT, precision)
        for case, precision in result.times
        if case == PRODUCT
    }
    if not rates:
        return ""
    best = max(rates, key=lambda precision: rates[precision])
    compared = list(dict.fromkeys(("fp32", best)))
    rows = []
    for case, kind in result.times:
        macs = result.facts.get(case, {}).get("macs", 0)
        if "inference" not in kind or not macs:
            continue
        rate = 2 * macs * result.batch / result.seconds(case, kind)
        if rate >= LEAST_SHARE * rates[best]:
            rows.append((case, kind, f"{rate / 1e9:.1f}", *(f"{rate / rates[name]:.2f}" for name in compared)))
    products = ", ".join(f"{precision} {rate / 1e9:.0f}" for precision, rate in rates.items())
    head = ("case", "kind", "GFLOP/s", *(f"share of the {name} rate" for name in compared))
    return (
        f"Matrix products (1024 x 1024) in the same process, GFLOP/s of CPU time: {products}.\n\n{_table(head, rows)}"
    )


def memory_table(result: Result) -> str:
    """Return the peak memory of each case; empty if it was not measured."""
    kinds = list(dict.fromkeys(kind for _, kind in result.memory))
    rows = [
        (case, *(f"{result.memory[case, kind] / MIB:.0f}" if (case, kind) in result.memory else "" for kind in kinds))
        for case in dict.fromkeys(case for case, _ in result.memory)
    ]
    return f"Peak memory, MiB, batch {result.batch}.\n\n{_table(('case', *kinds), rows)}" if rows else ""


def left_out(result: Result) -> list[str]:
    """Return a paragraph for each reason why measurements failed."""
    cases: dict[str, list[str]] = {}
    for case, reason in result.left_out.items():
        cases.setdefault(reason, []).append(case)
    return [f"Not measured ({reason}): {'; '.join(names)}." for reason, names in cases.items()]


def growth_table(growth: Mapping[str, tuple[list[float], float]]) -> str:
    """Return the times at each value, relative to the first value, and the slope."""
    rows = []
    for axis, (seconds, slope) in growth.items():
        steps = ", ".join(f"{v}: {s / seconds[0]:.2f}" for v, s in zip(GROWTH[axis], seconds, strict=True))
        rows.append((axis, steps, f"{slope:.2f}"))
    return _table(("setting", "CPU time by value, relative to the first", "slope"), rows)


def draw_pareto(result: Result, path: str | os.PathLike[str], kind: str, accuracies: Mapping[str, float]) -> None:
    """Draw CPU time against accuracy, or against parameters if there are no accuracies, with the Pareto front.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    require("matplotlib", "train")
    from matplotlib.figure import Figure

    heights = accuracies or {case: float(max(facts["parameters"], 1)) for case, facts in result.facts.items()}
    timed = [case for case in heights if (case, kind) in result.times]
    if not timed:
        return
    points = {case: (1000 * result.seconds(case, kind), heights[case]) for case in timed}
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for point in points.values():
        axis.plot(*point, "o", color="tab:blue")
    front = pareto_front({case: (x, -y if accuracies else y) for case, (x, y) in points.items()})
    xs, ys = zip(*(points[case] for case in front), strict=True)
    axis.plot(xs, ys, "--", color="tab:orange", label="Pareto front")
    axis.set(xscale="log", xlabel=f"CPU time, ms per batch of {result.batch} ({kind})")
    axis.set(ylabel="accuracy" if accuracies else "parameters", yscale="linear" if accuracies else "log")
    axis.legend()
    label_points(axis, points)
    _save(figure, path)


def draw_growth(growth: Mapping[str, tuple[list[float], float]], path: str | os.PathLike[str]) -> None:
    """Draw the times for each setting on logarithmic scales, with the slope.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    require("matplotlib", "train")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3), layout="constrained")
    axes = figure.subplots(1, len(growth), sharey=True)
    for axis, (name, (seconds, slope)) in zip(axes, growth.items(), strict=True):
        axis.loglog(GROWTH[name], [1000 * value for value in seconds], "o-")
        axis.set_xticks(GROWTH[name], list(map(str, GROWTH[name])))
        axis.minorticks_off()
        axis.set(xlabel=name, title=f"slope {slope:.2f}")
    axes[0].set(ylabel="CPU time, ms")
    _save(figure, path)


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the names that no other beats in both values (less is better), sorted by the first value."""
    front: list[str] = []
    for name in sorted(points, key=lambda name: points[name]):
        if not front or points[name][1] < points[front[-1]][1]:
            front.append(name)
    return front


def label_points(axis: Any, points: Mapping[str, tuple[float, float]]) -> None:
    """Write each name beside its point, without covering other names and points where possible."""
    from matplotlib.transforms import Bbox

    axis.figure.draw_without_rendering()  # computes the positions
    positions = [axis.transData.transform(point) for point in points.values()]
    taken = [Bbox([position - 6, position + 6]) for position in positions]
    taken.append(axis.get_legend().get_window_extent())
    for text, point in points.items():
        notes = [
            axis.annotate(text, point, xytext=(x, y), ha=side, textcoords="offset points", va="center", fontsize=8)
            for x, y, side in _OFFSETS
        ]
        boxes = [note.get_window_extent() for note in notes]
        free = [box.count_overlaps(taken) == 0 and _is_inside(box, axis.bbox) for box in boxes]
        chosen = free.index(True) if any(free) else 0
        taken.append(boxes[chosen])
        for index, note in enumerate(notes):
            if index != chosen:
                note.remove()


def _is_inside(box: Any, frame: Any) -> bool:
    return bool(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(markdown_table(head, rows))


def _facts(facts: Mapping[str, int] | None) -> tuple[str, str, str, str]:
    if facts is None:
        return "", "", "", ""
    sizes = (f"{facts['bytes'] / MIB:.2f}", f"{facts['saved'] / MIB:.1f}")
    return f"{facts['parameters']:,}", f"{facts['macs']:,}", *sizes


def _number(value: float) -> str:
    return f"{value:.2f}" if value == value else ""


def _save(figure: Any, path: str | os.PathLike[str]) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
