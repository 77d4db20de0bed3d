"""`maam data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maam.cli import completion
from maam.data import download


def data(
    name: Annotated[str, typer.Argument(help="cifar10 or cifar100", autocompletion=completion.archives)],
    root: Annotated[Path, typer.Argument(help="where to put it", metavar="DIR")],
) -> None:
    """Download a data set's official archive, check its sum and unpack it."""
    typer.echo(f"{download(name, root)}: ready")
