"""Reports as one HTML file: no scripts, no other files, readable in a browser and in a mail."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from maam.parity.report import SMALLEST, Depth, Report, Verdict
from maam.tolerance import LAYER

_STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; color: #1f2328; max-width: 1200px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #d1d9e0; padding: 4px 8px; text-align: left; vertical-align: top;
  overflow-wrap: break-word; }
th { background: #f6f8fa; }
code { overflow-wrap: anywhere; font-family: ui-monospace, monospace; font-size: 12px; }
.pass { color: #1a7f37; } .fail { color: #cf222e; font-weight: 600; } .other { color: #9a6700; }
tr.differs td { background: #ffebe9; } tr.together td, tr.unpaired td { background: #fff8c5; }
p.verdict { font-size: 1.1em; padding: 8px 12px; border-left: 4px solid; background: #f6f8fa; }
.muted { color: #59636e; } .number { white-space: nowrap; }
"""
_CLASSES = {Verdict.PASS: "pass", Verdict.FAIL: "fail"}
_COLORS = ("#0969da", "#bc4c00", "#8250df", "#1a7f37", "#cf222e", "#57606a", "#9a6700", "#0550ae")
_WIDTH, _HEIGHT = 1160, 290


def render(report: Report, before: Sequence[tuple[str, str]] = (), after: Sequence[tuple[str, str]] = ()) -> str:
    """Return a report as an HTML page.

    Args:
        report: the report.
        before: titles and HTML of further sections, between the summary and the stages.
        after: the same at the end.

    Example:
        >>> from maam.parity import Report, Row, Verdict
        >>> from maam.parity.html import render
        >>> page = render(Report("<net>", [Row("logits, eval", "torch", Verdict.PASS)]))
        >>> "&lt;net&gt;" in page, "<net>" in page
        (True, False)
    """
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(report.title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(report.title)}</h1>",
        _summary(report),
    ]
    stages = ("Stages", _stages(report))
    depth = [("Differences along the depth of the network", depth_svg(report.depth))] if report.depth else []
    parts += [f"<h2>{escape(title)}</h2>\n{body}" for title, body in (*before, stages, *depth, *after)]
    return "\n".join([*parts, "</body></html>\n"])


def _summary(report: Report) -> str:
    if report.failures:
        text = f"The first layer that differs is {report.first_difference or 'unknown'}."
        verdict = f'<p class="verdict fail">FAIL. {escape(text)}</p>'
    elif report.passed:
        verdict = '<p class="verdict pass">All results that were compared agree.</p>'
    else:
        verdict = '<p class="verdict other">Nothing was compared.</p>'
    versions = ", ".join(f"{name} {version}" for name, version in report.environment.items())
    return f'{verdict}\n<p class="muted">{escape(versions)}</p>'


def _stages(report: Report) -> str:
    head = ("stage", "runner", "largest difference", "relative", "bound", "verdict", "remarks")
    body = []
    for row, cells in zip(report.rows, report.lines(), strict=True):
        verdict = f'<span class="{_CLASSES.get(row.verdict, "other")}">{escape(cells[5])}</span>'
        numbers = (f'<span class="number">{escape(cell)}</span>' for cell in cells[2:5])
        body.append([*map(escape, cells[:2]), *numbers, verdict, escape(cells[6])])
    return table(head, body)


def table(
    head: Iterable[str],
    rows: Iterable[Sequence[str]],
    classes: Iterable[str] | None = None,
    widths: Iterable[int] = (),
) -> str:
    """Return a table; the cells are HTML, the headings plain text.

    Args:
        head: the headings.
        rows: the cells of each row.
        classes: the class of each row, "" for none.
        widths: the widths of the columns in percent; empty leaves them to the browser.
    """
    columns = "".join(f'<col style="width: {width}%">' for width in widths)
    lines = [f"<table>{columns}<thead><tr>", *(f"<th>{escape(text)}</th>" for text in head), "</tr></thead><tbody>"]
    listed = list(rows)
    for cells, name in zip(listed, classes or [""] * len(listed), strict=True):
        lines.append(f"<tr{f' class={name!r}' if name else ''}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return "\n".join([*lines, "</tbody></table>"])


def depth_svg(points: Sequence[Depth]) -> str:
    """Return an SVG with the largest difference of each layer, on a logarithmic axis, for each runner and mode."""
    layers = list(dict.fromkeys(point.layer for point in points))
    series = list(dict.fromkeys((point.runner, point.mode) for point in points))
    index = {name: i for i, name in enumerate(layers)}
    finite = [point.share for point in points if math.isfinite(point.absolute)]
    top = math.ceil(math.log10(max([LAYER.absolute, *finite]))) + 0.5
    bottom = math.log10(SMALLEST)

    def place(layer: str, value: float) -> tuple[float, float]:
        shown = top - 0.25 if not math.isfinite(value) else min(math.log10(max(value, SMALLEST)), top)
        x = 60 + (_WIDTH - 80) * (index[layer] + 0.5) / max(len(layers), 1)
        return round(x, 1), round(10 + (_HEIGHT - 70) * (top - shown) / (top - bottom), 1)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="100%" role="img" aria-label="differences by layer">']
    for exponent in range(math.ceil(bottom), math.floor(top) + 1):
        y = place(layers[0], 10.0**exponent)[1]
        parts.append(f'<line x1="60" x2="{_WIDTH - 20}" y1="{y}" y2="{y}" stroke="#d1d9e0"/>')
        parts.append(f'<text x="54" y="{y + 4}" font-size="11" text-anchor="end">1e{exponent}</text>')
    y = place(layers[0], LAYER.absolute)[1]
    parts.append(f'<line x1="60" x2="{_WIDTH - 20}" y1="{y}" y2="{y}" stroke="#cf222e" stroke-dasharray="6 4"/>')
    for number, (runner, mode) in enumerate(series):
        color = _COLORS[number % len(_COLORS)]
        size = max(5 - 1.5 * number, 1.5)  # a point that covers an equal one of another series leaves its edge visible
        parts.append(
            f'<text x="{60 + 240 * (number % 4)}" y="{_HEIGHT - 30 + 15 * (number // 4)}" font-size="12" '
            f'fill="{color}">{escape(f"{runner}, {mode}")}</text>'
        )
        for point in points:
            if (point.runner, point.mode) == (runner, mode):
                x, y = place(point.layer, point.share)
                label = escape(f"{point.layer or 'the whole model'}: {point.absolute:.1e} ({mode})")
                parts.append(f'<circle cx="{x}" cy="{y}" r="{size}" fill="{color}"><title>{label}</title></circle>')
    note = (
        "Each point is a layer in running order, on the reference's input, so that differences do not add up. The "
        "dashed line is the bound; 0 is drawn at the bottom, and a layer that cannot run at the top."
    )
    return "\n".join([*parts, "</svg>", f'<p class="muted">{note}</p>'])
