"""`maam export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maam.cli import completion
from maam.errors import DeploymentError
from maam.exporting.formats import FORMATS


def export(
    src: Annotated[Path, typer.Argument(help="a weights file, of either framework", metavar="FILE")],
    dst: Annotated[Path | None, typer.Argument(help="what to write; FILE with another suffix", metavar="OUT")] = None,
    format: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(FORMATS)}; by OUT's suffix otherwise", autocompletion=completion.formats),
    ] = None,
    classes: Annotated[str | None, typer.Option(help="class names: comma-separated, or a file of lines")] = None,
    mean: Annotated[str | None, typer.Option(help="of the channels in [0, 1], comma-separated")] = None,
    std: Annotated[str | None, typer.Option(help="of the channels in [0, 1], comma-separated")] = None,
    size: Annotated[int, typer.Option(min=1, help="height and width, for a single layer")] = 32,
    fused: Annotated[bool, typer.Option(help="fuse batch norm and branch weights first")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace OUT where it exists")] = False,
) -> None:
    """Write a model for an inference engine, with a free batch; the file is run against the model before it stays."""
    from maam.exporting import export as write

    if dst is None:
        if format not in FORMATS:
            raise DeploymentError(f"--format: expected one of {', '.join(FORMATS)}, or a name for OUT that tells it")
        dst = src.with_suffix(FORMATS[format].suffix)
    found = write(
        src,
        dst,
        format,
        size=size,
        fused=fused,
        class_names=None if classes is None else _names(classes),
        mean=None if mean is None else _numbers("--mean", mean),
        std=None if std is None else _numbers("--std", std),
        overwrite=overwrite,
    )
    written = ", ".join(map(str, found.files))
    typer.echo(f"{src} -> {written}: {found.format}, worst difference to the model {found.difference:.1e}")


def _names(text: str) -> list[str]:
    if Path(text).is_file():
        return [line.strip() for line in Path(text).read_text("utf-8").splitlines() if line.strip()]
    return [name.strip() for name in text.split(",")]


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise DeploymentError(f"{option}: expected numbers, comma-separated, got {text[:60]!r}") from None
