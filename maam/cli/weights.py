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
    dst: Annotated[Path, typer.Argument(help="the same; the suffix says which; a file there is replaced")],
    spec: Annotated[
        str | None, typer.Option(help="a preset's name or a spec document (.json)", autocompletion=completion.presets)
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="round to float16, bfloat16, float32 or float64; else dtypes stay")
    ] = None,
) -> None:
    """Convert weights between maam's file, PyTorch's and MindSpore's, or to a smaller file of half precision."""
    conversion.convert(src, dst, None if spec is None else find_spec(spec)[0], dtype=dtype)
    typer.echo(f"{src} -> {dst}")
