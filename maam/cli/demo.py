"""`maam demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="where the results go")] = Path("runs/demo"),
    epochs: Annotated[int, typer.Option(min=1)] = 30,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Train MAAM on scikit-learn's digits in PyTorch and prove the result in MindSpore and NumPy."""
    from maam.demonstration import run

    if not run(out, epochs=epochs, seed=seed):
        raise typer.Exit(1)
