"""`maam parity`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from maam import files
from maam.cli.consoles import console
from maam.cli.images import test_images
from maam.cli.specs import find_spec
from maam.errors import SpecError
from maam.parity import STAGES, Report, Verdict, check
from maam.parity.picture import draw_depth

_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "bold red"}


def parity(
    model: Annotated[str, typer.Argument(help="a preset's name, a weights file or a spec document (.json)")],
    data: Annotated[str | None, typer.Option(help="digits, cifar10 or cifar100; random images otherwise")] = None,
    root: Annotated[Path | None, typer.Option(help="folder of the data set")] = None,
    frameworks: Annotated[str, typer.Option(help="comma-separated")] = "torch,mindspore",
    stages: Annotated[str, typer.Option(help=f"comma-separated, of: {', '.join(STAGES)}")] = ",".join(STAGES),
    compiled: Annotated[bool, typer.Option(help="compare torch.compile too")] = True,
    batch_size: Annotated[int, typer.Option(min=2)] = 4,
    steps: Annotated[int, typer.Option(min=2, help="length of the free run")] = 50,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    json: Annotated[Path | None, typer.Option(help="write everything to this file")] = None,
    plot: Annotated[Path | None, typer.Option(help="draw the difference along the depth to this file")] = None,
    require_all: Annotated[bool, typer.Option("--require-all", help="fail where a stage did not run")] = False,
) -> None:
    """Prove that the frameworks agree, or name the first layer where they do not; exit status 1 on failure."""
    spec, arrays = find_spec(model)
    images, labels = (None, None) if data is None else test_images(data, root)
    if images is not None:
        classes = spec.output_shape(images.shape[1:])[0]
        if labels is not None and labels.max() >= classes:
            raise SpecError(f"{model} has {classes} classes; {data} has {labels.max() + 1}")
    log = Console(stderr=True)
    report = check(
        spec,
        arrays,
        images=images,
        labels=labels,
        frameworks=_split(frameworks),
        stages=_split(stages),
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
    if not report.passed(require_all):
        raise typer.Exit(1)


def print_report(report: Report, images: str) -> None:
    """The table and the verdict."""
    table = Table("stage", "runner", "worst abs", "worst rel", "bound", "verdict", "remarks")
    for row, cells in zip(report.rows, report.lines(), strict=True):
        colour = _COLOURS.get(row.verdict, "yellow")
        table.add_row(*cells[:5], f"[{colour}]{cells[5]}[/]", cells[6])
    out = console()
    out.print(table)
    versions = ", ".join(f"{name} {version}" for name, version in report.environment.items())
    out.print(f"{report.title}, {images}; {versions}", highlight=False)
    if report.failures:
        out.print(f"FAIL: the first layer that differs is {report.first_difference or 'not known'}", style="bold red")
    else:
        out.print("All that was compared agrees.", style="green")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
