"""The command `maam port`."""

from __future__ import annotations

import json as json_format
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from maam import _documents, _io
from maam.cli.options import Html, Json, check_outputs
from maam.cli.parity import print_report
from maam.cli.terminal import console
from maam.errors import PortingError

_LAYERS = 3
"""The number of layers that the table names for each cause."""


def port(
    torch_module: Annotated[
        str, typer.Argument(help="PyTorch: function that returns the model, package.module:name or file.py:name")
    ],
    mindspore_cell: Annotated[str, typer.Argument(help="MindSpore: the same")],
    input: Annotated[
        str | None,
        typer.Option(
            help='shape of one sample, such as 3,224,224; several: "3,224,224 10:int64:1000"; or a .npy file or image',
            show_default=False,
        ),
    ] = None,
    names: Annotated[
        Path | None, typer.Option(help='JSON file that pairs layers: {"PyTorch path": "MindSpore path"}')
    ] = None,
    skip: Annotated[str, typer.Option(help="comma-separated paths of layers without a counterpart")] = "",
    direction: Annotated[str, typer.Option(help="torch-to-mindspore or mindspore-to-torch")] = "torch-to-mindspore",
    transfer: Annotated[bool, typer.Option(help="copy the weights, or only compare the models")] = True,
    out: Annotated[
        Path | None, typer.Option(help="write the copied weights to this .ckpt, .pth or .safetensors file")
    ] = None,
    out_anyway: Annotated[bool, typer.Option("--out-anyway", help="write --out even if the models differ")] = False,
    names_out: Annotated[Path | None, typer.Option(help="write the pairs of layers to this file, for --names")] = None,
    json: Json = None,
    html: Html = None,
    batch_size: Annotated[int, typer.Option(min=1, max=4096, help="samples in a comparison")] = 4,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="training steps to compare")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="seed of the inputs")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="let --out and --names-out replace an existing file")
    ] = False,
) -> None:
    """Copy the weights of your own model to the other framework, and check that both models agree.

    This imports and runs your code. If the models differ, the exit status is 1, the table names every layer that
    differs and the cause, and --out and --names-out write no file.
    """
    from maam import porting
    from maam.porting import html as pages
    from maam.porting import inputs as given

    parts, mapping = given.parse_inputs(input), _names(names)
    _check_targets(out, names_out, direction, transfer, out_anyway, overwrite)
    read = (*(model.rpartition(":")[0] for model in (torch_module, mindspore_cell)), *(p.path or "" for p in parts))
    kept = names if names is not None and names != names_out else ""  # --overwrite lets --names-out replace --names
    check_outputs({"--out": out, "--names-out": names_out, "--json": json, "--html": html}, (*read, kept))
    x = given.load_inputs(parts, batch_size, seed)
    cell = porting.load_factory(mindspore_cell)  # MindSpore first: it fails after a protobuf of another package
    module = porting.load_factory(torch_module)
    report = porting.port(
        module,
        cell,
        inputs=x,
        names=mapping,
        skip=[part.strip() for part in skip.split(",") if part.strip()],
        direction=direction,
        transfer=transfer,
        steps=steps,
        seed=seed,
        progress=_Progress(),
    )
    _print(report, "the given inputs" if any(part.path for part in parts) else "random inputs")
    if json is not None:
        _io.write_text(json, report.to_json())
    if html is not None:
        _io.write_text(html, pages.render(report))
    if names_out is not None and (report.passed or out_anyway):
        _io.write_text(names_out, json_format.dumps(report.names, indent=1) + "\n")
        typer.echo(f"pairs of layers -> {names_out}")
    if out is not None and (report.passed or out_anyway):
        target = direction.rpartition("-")[2]
        load = porting.save_weights(target, module if target == "torch" else cell, out, _note(report))
        typer.echo(f"weights of the {target} model -> {out}")
        typer.echo(f"load them with: {load}")
    if report.refusal:
        typer.echo(report.refusal, err=True)
    if not report.passed:
        raise typer.Exit(1)


class _Progress:
    """Prints each stage when it starts, with the seconds since the first one."""

    def __init__(self) -> None:
        self.log, self.start = console(stderr=True), time.monotonic()

    def __call__(self, stage: str) -> None:
        self.log.print(f"{time.monotonic() - self.start:5.0f} s  {stage} ...")


def _note(report: Any) -> dict[str, str]:
    """Return what a file says about the models: nothing if they agree."""
    return {} if report.passed else {"maam_port": f"the models differ, first at {report.first_difference or 'unknown'}"}


def _print(report: Any, inputs: str) -> None:
    """Print the pairing, the causes of all differences, and the table of the stages."""
    out = console()
    out.print(f"{len(report.pairs)} layers paired {report.how}")
    for remark in report.remarks:
        out.print(remark)
    print_report(report, inputs)
    if not report.causes:
        return
    table = Table("cause", "difference", "write", "changes", "layers")
    for cause in report.causes:
        more = f", and {len(cause.layers) - _LAYERS} more" if len(cause.layers) > _LAYERS else ""
        note = f" ({cause.note})" if cause.note and cause.torch else ""
        cells = (cause.title, cause.text + note, cause.remedy, ", ".join(cause.seen) or "no result")
        table.add_row(*(Text(cell) for cell in (*cells, ", ".join(cause.layers[:_LAYERS]) + more)))
    out.print(table)
    if layers := report.differing_layers:
        several = len(layers) > 1
        text = f"{len(layers)} {'layers or pieces of code differ' if several else 'layer or piece of code differs'}"
        out.print(text)


def _check_targets(
    out: Path | None, names_out: Path | None, direction: str, transfer: bool, anyway: bool, overwrite: bool
) -> None:
    """Check before the run that its results can be written."""
    from maam.porting.files import check_suffix
    from maam.porting.session import check_direction

    check_direction(direction)
    if anyway and out is None:
        raise PortingError("--out-anyway has no effect without --out; add --out FILE")
    if out is not None:
        if not transfer:
            raise PortingError("--no-transfer copies no weights that --out could write; remove one of the two options")
        check_suffix(direction.rpartition("-")[2], out)
        _io.check_target(out, overwrite=overwrite, option="--out")
    if names_out is not None:
        _io.check_target(names_out, overwrite=overwrite, option="--names-out")


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
