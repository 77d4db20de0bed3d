"""What a benchmark says: Markdown tables and pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.cost.measure import GROWTH, MATRIX_OPERATIONS, PRODUCT, Result
from maam._io import replacing
from maam.errors import require

BASE_KIND = "torch inference fp32"
MIB = 2**20
LEAST_SHARE = 0.01
_PLACES = (
    *((7, 0, "left"), (-7, 0, "right"), (7, 8, "left"), (7, -8, "left"), (-7, 8, "right"), (-7, -8, "right")),
    *((0, 10, "center"), (0, -10, "center"), (-7, 17, "right"), (-7, -17, "right"), (7, 17, "left"), (7, -17, "left")),
)
"""Where a name may stand beside its point, in points, the best first."""


def times_table(result: Result) -> str:
    """CPU time of each case and kind as a multiple of the first case's plain inference in the first framework.

    Empty where nothing could be measured.
    """
    kinds = list(dict.fromkeys(kind for case, kind in result.times if case != PRODUCT))
    cases = list(dict.fromkeys(case for case, _ in result.times if case != PRODUCT))
    if not kinds:
        return ""
    base_kind = BASE_KIND if BASE_KIND in kinds else kinds[0]
    base = result.seconds(cases[0], base_kind)
    head = ("case", "parameters", "MACs", "on disk, MiB", "saved in training, MiB an image", *kinds)
    rows = [
        (case, *_facts(result.facts.get(case)), *(_number(result.seconds(case, kind) / base) for kind in kinds))
        for case in cases
    ]
    unit = f"CPU time, batch {result.batch}; {cases[0]}, {base_kind} = 1 ({1000 * base:.2f} ms)."
    return f"{unit}\n\n{table(head, rows)}"


def limits_table(result: Result) -> str:
    """The machine's rate of matrix products in the same run, and the share of it that each case reaches.

    Cases that multiply little, under `LEAST_SHARE` of the rate, are bound by memory, and left out.
    """
    rates = {precision: MATRIX_OPERATIONS / result.seconds(PRODUCT, precision) for precision in _products(result)}
    if not rates:
        return ""
    best = max(rates, key=lambda precision: rates[precision])
    yardsticks = list(dict.fromkeys(("fp32", best)))
    rows = []
    for (case, kind), _ in result.times.items():
        macs = result.facts.get(case, {}).get("macs", 0)
        if "inference" in kind and macs:
            rate = 2 * macs * result.batch / result.seconds(case, kind)
            if rate < LEAST_SHARE * rates[best]:
                continue
            rows.append((case, kind, f"{rate / 1e9:.1f}", *(f"{rate / rates[name]:.2f}" for name in yardsticks)))
    given = ", ".join(f"{precision} {rate / 1e9:.0f}" for precision, rate in rates.items())
    head = ("case", "kind", "GFLOP/s", *(f"share of the {name} rate" for name in yardsticks))
    return f"Matrix products (1024 x 1024) in the same run, GFLOP/s of CPU time: {given}.\n\n{table(head, rows)}"


def memory_table(result: Result) -> str:
    """The peak memory of each case, where it was measured."""
    kinds = list(dict.fromkeys(kind for _, kind in result.memory))
    rows = [
        (case, *(f"{result.memory[case, kind] / MIB:.0f}" if (case, kind) in result.memory else "" for kind in kinds))
        for case in dict.fromkeys(case for case, _ in result.memory)
    ]
    return f"Peak memory, MiB, batch {result.batch}.\n\n{table(('case', *kinds), rows)}" if rows else ""


def left_out(result: Result) -> list[str]:
    """What could not be measured, a paragraph for each reason."""
    cases: dict[str, list[str]] = {}
    for case, reason in result.left_out.items():
        cases.setdefault(reason, []).append(case)
    return [f"Not measured ({reason}): {'; '.join(names)}." for reason, names in cases.items()]


def growth_table(growth: Mapping[str, tuple[list[float], float]]) -> str:
    """Seconds at each value as a multiple of the first, and the slope."""
    rows = []
    for axis, (seconds, slope) in growth.items():
        steps = ", ".join(f"{v}: {s / seconds[0]:.2f}" for v, s in zip(GROWTH[axis], seconds, strict=True))
        rows.append((axis, steps, f"{slope:.2f}"))
    return table(("what grows", "CPU time by its value, the first = 1", "slope"), rows)


def draw_pareto(result: Result, path: str | os.PathLike[str], kind: str, accuracies: Mapping[str, float]) -> None:
    """Draw CPU time against accuracy where it is given, else against parameters, with the front that nothing beats.

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
    across, up = zip(*(points[case] for case in front), strict=True)
    axis.plot(across, up, "--", color="tab:orange", label="Pareto front")
    axis.set(xscale="log", xlabel=f"CPU time, ms a batch of {result.batch} ({kind})")
    axis.set(ylabel="accuracy" if accuracies else "parameters", yscale="linear" if accuracies else "log")
    axis.legend()
    _label(axis, points)
    _save(figure, path)


def draw_growth(growth: Mapping[str, tuple[list[float], float]], path: str | os.PathLike[str]) -> None:
    """Draw each axis of growth on logarithmic scales, with its slope.

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
    """The names that no other beats in both values (less is better), by the first value."""
    front: list[str] = []
    for name in sorted(points, key=lambda name: points[name]):
        if not front or points[name][1] < points[front[-1]][1]:
            front.append(name)
    return front


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    cells = [tuple(head)]
    body = [cells[0], ("---",) * len(cells[0]), *map(tuple, rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in body) + "\n"


def _facts(facts: Mapping[str, int] | None) -> tuple[str, str, str, str]:
    if facts is None:
        return "", "", "", ""
    sizes = (f"{facts['bytes'] / MIB:.2f}", f"{facts['saved'] / MIB:.1f}")
    return f"{facts['parameters']:,}", f"{facts['macs']:,}", *sizes


def _products(result: Result) -> list[str]:
    return [precision for case, precision in result.times if case == PRODUCT]


def _number(value: float) -> str:
    return f"{value:.2f}" if value == value else ""


def _label(axis: Any, points: Mapping[str, tuple[float, float]]) -> None:
    """Write each name beside its point, where it covers neither a name nor a point, if there is such a place."""
    from matplotlib.transforms import Bbox

    axis.figure.draw_without_rendering()  # only then are all places known
    places = [axis.transData.transform(point) for point in points.values()]
    taken = [Bbox([place - 6, place + 6]) for place in places]
    taken.append(axis.get_legend().get_window_extent())
    for text, point in points.items():
        notes = [
            axis.annotate(text, point, xytext=(x, y), ha=side, textcoords="offset points", va="center", fontsize=8)
            for x, y, side in _PLACES
        ]
        boxes = [note.get_window_extent() for note in notes]
        free = [box.count_overlaps(taken) == 0 and _inside(box, axis.bbox) for box in boxes]
        chosen = free.index(True) if any(free) else 0
        taken.append(boxes[chosen])
        for note in (note for index, note in enumerate(notes) if index != chosen):
            note.remove()


def _inside(box: Any, frame: Any) -> bool:
    return bool(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1)


def _save(figure: Any, path: str | os.PathLike[str]) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
