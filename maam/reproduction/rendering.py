"""What was reproduced, as Markdown, CSV and picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from maam.reproduction.experiments import Experiment
from maam.reproduction.losses import render_losses
from maam.reproduction.results import Result
from maam.reproduction.tables import render_table


def render(name: str, experiment: Experiment, results: Sequence[Result], out: Path) -> str:
    """Write NAME.md, NAME.csv and NAME.png to the folder `out`; returns the Markdown.

    A name that starts with "figure" gets the losses of each epoch, another one the figures of the last epoch.

    Raises:
        MissingFrameworkError: matplotlib is not installed.
    """
    out.mkdir(parents=True, exist_ok=True)
    return (render_losses if name.startswith("figure") else render_table)(name, experiment, results, out)
