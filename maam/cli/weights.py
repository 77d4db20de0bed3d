"""`maam convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maam import conversion
from maam.cli import completion
from maam.weights.naming import find_spec


def convert(
    src: Annotated[Path, typer.Argument(help=".safetensors, .pth, .pt, .pth.tar or .ckpt")],
    dst: Annotated[Path, typer.Argument(help="the same; the suffix says which")],
    spec: Annotated[
        str | None, typer.Option(help="a preset's name or a spec document (.json)", autocompletion=completion.presets)
    ] = None,
) -> None:
    """Convert weights between maam's file, PyTorch's and MindSpore's."""
    conversion.convert(src, dst, None if spec is None else find_spec(spec)[0])
    typer.echo(f"{src} -> {dst}")
