"""The command `maam parity`, and the table that it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from maam import _io
from maam.backend.registry import trainable_names
from maam.cli import completion
from maam.cli.images import check_images, check_root, load_images
from maam.cli.options import Html, Json, Model, Root, check_outputs, check_picture, split
from maam.cli.terminal import console
from maam.errors import MaamError
from maam.parity import STAGES, Report, Verdict, check
from maam.parity.report import draw_depth
from maam.spec import Node
from maam.weights.lookup import find_spec

Array = np.ndarray[Any, Any]
_FRAMEWORKS = ",".join(trainable_names())
_COLORS = {Verdict.PASS: "green", Verdict.FAIL: "bold red"}


def parity(
    model: Model,
    data: Annotated[
        str | None,
        typer.Option(help="digits, cifar10 or cifar100; default: random images", autocompletion=completion.image_sets),
    ] = None,
    root: Root = None,
    frameworks: Annotated[
        str, typer.Option(help="comma-separated", autocompletion=completion.several_frameworks)
    ] = _FRAMEWORKS,
    stages: Annotated[
        str, typer.Option(help=f"comma-separated: {', '.join(STAGES)}", autocompletion=completion.stages)
    ] = ",".join(STAGES),
    compiled: Annotated[bool, typer.Option(help="compare torch.compile, too")] = True,
    batch_size: Annotated[int, typer.Option(min=2, max=4096, help="images in a comparison")] = 4,
    steps: Annotated[int, typer.Option(min=2, help="training steps of the free run")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="seed of weights and images")] = 0,
    json: Json = None,
    html: Html = None,
    plot: Annotated[
        Path | None, typer.Option(help="draw the differences of all layers to this file; replaced if it exists")
    ] = None,
    require_all: Annotated[bool, typer.Option("--require-all", help="fail if a stage did not run")] = False,
) -> None:
    """Compare the frameworks with a float64 reference, and name the first layer that differs.

    The exit status is 1 if a stage fails.
    """
    spec, arrays = find_spec(model)
    check_outputs({"--json": json, "--html": html, "--plot": plot}, [model])
    check_picture("--plot", plot)
    images, labels = _images(spec, data, root)
    log = console(stderr=True)
    report = check(
        spec,
        arrays,
        images=images,
        labels=labels,
        frameworks=split("--frameworks", frameworks),
        stages=split("--stages", stages),
        compiled=compiled,
        seed=seed,
        batch_size=batch_size,
        steps=steps,
        progress=lambda stage: log.print(f"{stage} ..."),
    )
    print_report(report, f"{data} images" if data else "random images")
    if json is not None:
        _io.write_text(json, report.to_json())
    if html is not None:
        from maam.parity.html import render

        _io.write_text(html, render(report))
    if plot is not None:
        draw_depth(report, plot)
    if not report.passed:
        raise typer.Exit(1)
    if require_all and not report.complete:
        raise MaamError("--require-all: not every stage ran; see NOT RUN in the table for the reasons")


def print_report(report: Report, images: str) -> None:
    """Print the table of a report and its verdict."""
    table = Table("stage", "runner", "worst abs", "worst rel", "bound", "verdict", "remarks")
    for row, cells in zip(report.rows, report.lines(), strict=True):
        color = _COLORS.get(row.verdict, "yellow")
        table.add_row(*cells[:5], Text(cells[5], color), Text(cells[6]))
    out = console()
    out.print(table)
    versions = ", ".join(f"{name} {version}" for name, version in report.environment.items())
    out.print(f"{report.title}, {images}; {versions}")
    if report.failures:
        out.print(f"FAIL: the first layer that differs is {report.first_difference or 'unknown'}", style="bold red")
    elif not report.passed:
        out.print("Nothing was compared.", style="yellow")
    else:
        out.print("All results that were compared agree.", style="green")


def _images(spec: Node, data: str | None, root: Path | None) -> tuple[Array | None, Array | None]:
    check_root(data, root)
    if data is None:
        return None, None
    images, labels = load_images(data, root)
    check_images(spec, data, images, labels)
    return images, labels
