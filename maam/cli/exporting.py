"""`maam export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maam.cli import completion
from maam.cli.metadata import Classes, Mean, Std, class_names, numbers
from maam.errors import DeploymentError
from maam.exporting.formats import FORMATS


def export(
    src: Annotated[Path, typer.Argument(help="a weights file, of either framework", metavar="FILE")],
    dst: Annotated[Path | None, typer.Argument(help="what to write; FILE with another suffix", metavar="OUT")] = None,
    format: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(FORMATS)}; by OUT's suffix otherwise", autocompletion=completion.formats),
    ] = None,
    classes: Classes = None,
    mean: Mean = None,
    std: Std = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="height and width; a model's own, or 32 for a layer, otherwise")
    ] = None,
    fused: Annotated[bool, typer.Option(help="fuse batch norm and branch weights first")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace OUT where it exists")] = False,
) -> None:
    """Write a model for an inference engine, with a free batch (air: 1); the file is run against the model first."""
    from maam.exporting import export as write

    if dst is None:
        if format not in FORMATS:
            raise DeploymentError(f"--format: expected one of {', '.join(FORMATS)}, or a name for OUT that tells it")
        if not src.is_file():
            raise DeploymentError(f"{src}: no such file")
        dst = src.with_suffix(FORMATS[format].suffix)
    found = write(
        src,
        dst,
        format,
        size=size,
        fused=fused,
        class_names=class_names(classes),
        mean=numbers("--mean", mean),
        std=numbers("--std", std),
        overwrite=overwrite,
    )
    written = ", ".join(map(str, found.files))
    typer.echo(f"{src} -> {written}: {found.format}, worst difference to the model {found.difference:.1e}")
