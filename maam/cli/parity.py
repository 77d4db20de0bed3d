"""The commands `maam parity` and `maam port`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from maam import _documents, _io
from maam.cli import completion
from maam.cli.images import check_images, check_root, load_images
from maam.cli.options import Model, Overwrite, Root, check_written, split
from maam.cli.terminal import console
from maam.errors import MaamError, PortingError, require
from maam.parity import STAGES, Report, Verdict, check
from maam.parity.report import draw_depth
from maam.spec import Node
from maam.weights.lookup import find_spec

Array = np.ndarray[Any, Any]
_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "bold red"}
_PICTURES = (".png", ".svg", ".pdf")


def parity(
    model: Model,
    data: Annotated[
        str | None,
        typer.Option(help="digits, cifar10 or cifar100; default: random images", autocompletion=completion.image_sets),
    ] = None,
    root: Root = None,
    frameworks: Annotated[
        str, typer.Option(help="comma-separated", autocompletion=completion.several_frameworks)
    ] = "torch,mindspore",
    stages: Annotated[
        str, typer.Option(help=f"comma-separated: {', '.join(STAGES)}", autocompletion=completion.stages)
    ] = ",".join(STAGES),
    compiled: Annotated[bool, typer.Option(help="compare torch.compile, too")] = True,
    batch_size: Annotated[int, typer.Option(min=2, max=4096, help="images in a comparison")] = 4,
    steps: Annotated[int, typer.Option(min=2, help="training steps of the free run")] = 50,
    seed: Annotated[int, typer.Option(min=0, help="seed of weights and images")] = 0,
    json: Annotated[Path | None, typer.Option(help="write the report to this file")] = None,
    plot: Annotated[Path | None, typer.Option(help="draw the differences of all layers to this file")] = None,
    require_all: Annotated[bool, typer.Option("--require-all", help="fail if a stage did not run")] = False,
) -> None:
    """Compare the frameworks with a float64 reference, and name the first layer that differs.

    The exit status is 1 if a stage fails.
    """
    spec, arrays = find_spec(model)
    _check_targets(json, plot)
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
        progress=lambda stage: log.print(f"{stage} ...", highlight=False),
    )
    print_report(report, f"{data} images" if data else "random images")
    if json is not None:
        _io.write_text(json, report.to_json())
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
        colour = _COLOURS.get(row.verdict, "yellow")
        table.add_row(*cells[:5], Text(cells[5], colour), Text(cells[6]))
    out = console()
    out.print(table)
    versions = ", ".join(f"{name} {version}" for name, version in report.environment.items())
    out.print(f"{report.title}, {images}; {versions}", highlight=False, markup=False)
    if report.failures:
        out.print(f"FAIL: the first layer that differs is {report.first_difference or 'unknown'}", style="bold red")
    elif not report.passed:
        out.print("Nothing was compared.", style="yellow")
    else:
        out.print("All results that were compared agree.", style="green")


def _check_targets(json: Path | None, plot: Path | None) -> None:
    """Check before the run that its results can be written."""
    check_written("--json", json)
    check_written("--plot", plot)
    if plot is not None and plot.suffix not in _PICTURES:
        raise MaamError(f"--plot {plot}: expected a file name that ends in {', '.join(_PICTURES)}")
    if plot is not None:
        require("matplotlib", "train")


def _images(spec: Node, data: str | None, root: Path | None) -> tuple[Array | None, Array | None]:
    check_root(data, root)
    if data is None:
        return None, None
    images, labels = load_images(data, root)
    check_images(spec, data, images, labels)
    return images, labels


def port(
    torch_module: Annotated[str, typer.Argument(help="PyTorch: function that returns the model, package.module:name")],
    mindspore_cell: Annotated[
        str, typer.Argument(help="MindSpore: function that returns the model, package.module:name")
    ],
    input: Annotated[str, typer.Option(help="shape of one sample, such as 3,224,224")],
    names: Annotated[
        Path | None, typer.Option(help='JSON file that pairs layers: {"PyTorch path": "MindSpore path"}')
    ] = None,
    skip: Annotated[str, typer.Option(help="comma-separated paths of layers without a counterpart")] = "",
    direction: Annotated[str, typer.Option(help="torch-to-mindspore or mindspore-to-torch")] = "torch-to-mindspore",
    transfer: Annotated[bool, typer.Option(help="copy the weights, or only compare the models")] = True,
    out: Annotated[Path | None, typer.Option(help="write the copied weights to this .safetensors file")] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=4096, help="samples in a comparison")] = 4,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="training steps to compare")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="seed of the inputs")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Copy the weights of your own model to the other framework, and check that both models agree.

    This imports and runs your code. If the models differ, the exit status is 1 and no file is written.
    """
    from maam import porting

    shape, mapping = _shape(input), _names(names)
    if out is not None:
        if not transfer:
            raise PortingError("--no-transfer copies no weights that --out could write; remove one of the two options")
        if out.suffix != ".safetensors":
            raise PortingError(f"--out {out}: expected a file name that ends in .safetensors")
        _io.check_target(out, overwrite=overwrite)
    cell = porting.load_factory(mindspore_cell)  # MindSpore first: it fails after a protobuf of another package
    module = porting.load_factory(torch_module)
    log = console(stderr=True)
    report = porting.port(
        module,
        cell,
        input_shape=shape,
        names=mapping,
        skip=[part.strip() for part in skip.split(",") if part.strip()],
        direction=direction,
        transfer=transfer,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        progress=lambda stage: log.print(f"{stage} ...", highlight=False),
    )
    console().print(f"{len(report.pairs)} layers paired {report.how}", highlight=False)
    print_report(report, "random inputs")
    if not report.passed:
        raise typer.Exit(1)
    if out is not None:
        target = direction.rpartition("-")[2]
        porting.save_weights(target, module if target == "torch" else cell, out)
        typer.echo(f"weights of the {target} model -> {out}")


def _shape(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise MaamError(f"--input: expected positive integers such as 3,224,224, got {text!r}")
    return tuple(map(int, parts))


def _names(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        found: Any = _documents.parse_json(path.read_text("utf-8-sig"), unique=True)
    except OSError as error:
        raise PortingError(f"--names {path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise PortingError(f"--names {path}: not JSON: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise PortingError(f"--names {path}: expected a JSON object of PyTorch paths and MindSpore paths")
    return found
