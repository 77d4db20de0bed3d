"""`maam optimize`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from maam.cli import completion
from maam.cli.consoles import console
from maam.cli.options import split
from maam.errors import DeploymentError, MaamError, require
from maam.exporting.precision import ENGINES
from maam.spec.inputs import example_shape
from maam.weights.exchange import read_whole

MAX_BATCH = 4096


def optimize(
    file: Annotated[Path, typer.Argument(help="a weights file (.safetensors)")],
    engine: Annotated[str, typer.Option(help=f"comma-separated, of: {', '.join(ENGINES)}")] = ",".join(ENGINES),
    precision: Annotated[
        str, typer.Option(help="comma-separated: auto, fp32, bf16, fp16", autocompletion=completion.several_precisions)
    ] = "fp32,auto",
    batch: Annotated[str, typer.Option(help="comma-separated sizes of batches")] = "1,64",
    size: Annotated[
        int | None, typer.Option(min=1, help="height and width; a model's own, or 32 for a layer, otherwise")
    ] = None,
) -> None:
    """Measure here, by CPU time, what `maam.torch.optimize` makes of a model: times faster than plain PyTorch."""
    require("torch", "torch")
    spec, _ = read_whole(file)
    engines, precisions = split("--engine", engine), split("--precision", precision)
    batches = [_batch(part) for part in batch.split(",")]
    measure = import_module("maam.torch.speed").measure
    table = Table("engine", "precision", *(f"batch {count}" for count in batches))
    rows: dict[tuple[str, str], list[str]] = {}
    for column, count in enumerate(batches):
        speeds, reasons = measure(file, (count, *example_shape(spec, size)), engines, precisions)
        for key, value in speeds.items():
            rows.setdefault(key, [""] * len(batches))[column] = f"{value:.2f}"
    if not any(key[0] != "eager" for key in rows):
        raise DeploymentError("; ".join(dict.fromkeys(reasons)))
    for key, cells in rows.items():
        table.add_row(*key, *cells)
    out = console()
    out.print(table)
    for reason in dict.fromkeys(reasons):
        out.print(f"not measured: {reason}", highlight=False, markup=False)


def _batch(text: str) -> int:
    if not text.strip().isdecimal() or not 1 <= int(text) <= MAX_BATCH:
        raise MaamError(f"--batch: expected sizes from 1 to {MAX_BATCH}, comma-separated, got {text[:60]!r}")
    return int(text)
