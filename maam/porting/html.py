"""The report of a port as one HTML file: causes, and both models side by side."""

from __future__ import annotations

import math
from html import escape

from maam.parity import html
from maam.porting.report import DIFFERS, TOGETHER, UNPAIRED, PortReport

_CLASSES = {DIFFERS: "differs", TOGETHER: "together", UNPAIRED: "unpaired"}
_SHOWN = 3
"""The number of layers that a cause shows before it is opened."""


def render(report: PortReport) -> str:
    """Return the report as an HTML page without other files.

    Example:
        >>> from maam.porting import PortReport
        >>> from maam.porting.html import render
        >>> render(PortReport("net")).startswith("<!doctype html>")
        True
    """
    sections = [("Pairing", _pairing(report))]
    if report.causes:
        sections.append(("Causes", _causes(report)))
    layout = [("Both models side by side", _layout(report))] if report.layout else []
    return html.render(report, sections, layout)


def _pairing(report: PortReport) -> str:
    remarks = "".join(f"<li>{escape(text)}</li>" for text in report.remarks)
    text = f"{len(report.pairs)} layers with weights, paired {report.how}."
    return f"<p>{escape(text)}</p>" + (f"<ul>{remarks}</ul>" if remarks else "")


def _causes(report: PortReport) -> str:
    rows = []
    for cause in report.causes:
        remedy = f"<code>{escape(cause.remedy)}</code>" if cause.remedy else ""
        seen = escape(", ".join(cause.seen) or "no result")
        detail = f'<br><span class="muted">{escape(cause.note)}</span>' if cause.note and cause.torch else ""
        rows.append([escape(cause.title), escape(cause.text) + detail, remedy, seen, _layers(cause.layers)])
    head = ("cause", "difference", "the first layer, written so that it agrees", "changes", "layers")
    return html.table(head, rows, widths=(14, 27, 27, 9, 23))


def _layers(names: tuple[str, ...]) -> str:
    """Return the names, of which most stay folded if they are many."""
    items = [f"<code>{escape(name)}</code>" for name in names]
    if len(items) <= _SHOWN:
        return "<br>".join(items)
    summary = "<br>".join(items[:_SHOWN])
    more = f"and {len(items) - _SHOWN} more"
    return f"{summary}<details><summary>{more}</summary>{'<br>'.join(items[_SHOWN:])}</details>"


def _layout(report: PortReport) -> str:
    rows = []
    for line in report.layout:
        number = "" if math.isnan(line.absolute) else f"{line.absolute:.1e}"
        cells = [line.torch, line.torch_layer, line.mindspore, line.mindspore_layer]
        error = f'<span class="number">{number}</span>'
        rows.append([*(f"<code>{escape(cell)}</code>" for cell in cells), error, escape(line.verdict)])
    classes = [_CLASSES.get(line.verdict, "") for line in report.layout]
    return html.table(
        ("PyTorch", "layer", "MindSpore", "layer", "error", "verdict"), rows, classes, (17, 26, 17, 26, 6, 8)
    )
