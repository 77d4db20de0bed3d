"""`maam parity`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from maam import files
from maam.cli import completion
from maam.cli.consoles import console
from maam.cli.images import Array, check_images, test_images
from maam.cli.options import Root, check_written, split
from maam.errors import DataError, MaamError, require
from maam.parity import STAGES, Report, Verdict, check
from maam.parity.picture import draw_depth
from maam.spec import Node
from maam.weights.naming import find_spec

_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "bold red"}
_PICTURES = (".png", ".svg", ".pdf")


def parity(
    model: Annotated[
        str,
        typer.Argument(
            help="a preset's name, a weights file or a spec document (.json)", autocompletion=completion.presets
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(help="digits, cifar10 or cifar100; random images otherwise", autocompletion=completion.image_sets),
    ] = None,
    root: Root = None,
    frameworks: Annotated[
        str, typer.Option(help="comma-separated", autocompletion=completion.several_frameworks)
    ] = "torch,mindspore",
    stages: Annotated[
        str, typer.Option(help=f"comma-separated, of: {', '.join(STAGES)}", autocompletion=completion.stages)
    ] = ",".join(STAGES),
    compiled: Annotated[bool, typer.Option(help="compare torch.compile too")] = True,
    batch_size: Annotated[int, typer.Option(min=2, max=4096)] = 4,
    steps: Annotated[int, typer.Option(min=2, help="length of the free run")] = 50,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    json: Annotated[Path | None, typer.Option(help="write everything to this file")] = None,
    plot: Annotated[Path | None, typer.Option(help="draw the difference along the depth to this file")] = None,
    require_all: Annotated[bool, typer.Option("--require-all", help="fail where a stage did not run")] = False,
) -> None:
    """Prove that the frameworks agree, or name the first layer where they do not; exit status 1 on failure."""
    spec, arrays = find_spec(model)
    _check_targets(json, plot)
    images, labels = _images(spec, data, root)
    log = Console(stderr=True)
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
        progress=lambda stage: log.print(f"{stage} ...", highlight=False),
    )
    print_report(report, f"{data} images" if data else "random images")
    if json is not None:
        files.write_text(json, report.to_json())
    if plot is not None:
        draw_depth(report, plot)
    if not report.passed:
        raise typer.Exit(1)
    if require_all and not report.complete:
        raise MaamError("--require-all: not every stage ran; the table says NOT RUN, and why")


def print_report(report: Report, images: str) -> None:
    """The table and the verdict."""
    table = Table("stage", "runner", "worst abs", "worst rel", "bound", "verdict", "remarks")
    for row, cells in zip(report.rows, report.lines(), strict=True):
        colour = _COLOURS.get(row.verdict, "yellow")
        table.add_row(*cells[:5], Text(cells[5], colour), Text(cells[6]))
    out = console()
    out.print(table)
    versions = ", ".join(f"{name} {version}" for name, version in report.environment.items())
    out.print(f"{report.title}, {images}; {versions}", highlight=False, markup=False)
    if report.failures:
        out.print(f"FAIL: the first layer that differs is {report.first_difference or 'not known'}", style="bold red")
    elif not report.passed:
        out.print("Nothing was compared.", style="yellow")
    else:
        out.print("All that was compared agrees.", style="green")


def _check_targets(json: Path | None, plot: Path | None) -> None:
    """Refuse before the run what could not be written after it."""
    check_written("--json", json)
    check_written("--plot", plot)
    if plot is not None and plot.suffix not in _PICTURES:
        raise MaamError(f"--plot {plot}: expected a name that ends in {', '.join(_PICTURES)}")
    if plot is not None:
        require("matplotlib", "train")


def _images(spec: Node, data: str | None, root: Path | None) -> tuple[Array | None, Array | None]:
    if data is None:
        if root is not None:
            raise DataError(f"--root {root}: name the data set with --data too")
        return None, None
    images, labels = test_images(data, root)
    check_images(spec, data, images, labels)
    return images, labels
