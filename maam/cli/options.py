"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maam.cli import completion

Root = Annotated[Path | None, typer.Option(help="folder of the data set")]
Framework = Annotated[str, typer.Option(help="torch or mindspore", autocompletion=completion.frameworks)]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda or ascend; the best otherwise", autocompletion=completion.devices)
]
