"""`maam runs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from maam.cli.consoles import console
from maam.cli.options import check_written
from maam.errors import MaamError


def runs(
    folders: Annotated[list[Path], typer.Argument(help="folders of runs, or folders that hold such")],
    out: Annotated[Path | None, typer.Option(help="a .md file for the table; the curves go beside it as .png")] = None,
) -> None:
    """Show runs side by side: in what their recipes differ, and how far each came."""
    from maam.reproduction.overview import render_runs, tabulate
    from maam.training import read_runs

    if out is not None and out.suffix != ".md":
        raise MaamError(f"--out {out}: expected a file that ends with .md")
    check_written("--out", out)
    found = read_runs(folders)
    head, rows = tabulate(found)
    table = Table()
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console().print(table)
    if out is not None:
        render_runs(found, out)
