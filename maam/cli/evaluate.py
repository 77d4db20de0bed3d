"""`maam evaluate`."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from maam import files
from maam.cli import completion
from maam.cli.consoles import console, track
from maam.cli.options import (
    Device,
    ImageOverride,
    ImageRecipe,
    NumWorkers,
    OnBroken,
    Root,
    check_written,
    image_options,
    split,
)

if TYPE_CHECKING:
    from maam.training.evaluation import Evaluation


def evaluate(
    model: Annotated[str, typer.Argument(help="a weights file, or the folder of a run (its final weights)")],
    data: Annotated[
        str, typer.Option(help="cifar10, cifar100, digits or imagefolder", autocompletion=completion.data_sets)
    ],
    root: Root = None,
    framework: Annotated[
        str,
        typer.Option(help="comma-separated, of: torch, mindspore, reference", autocompletion=completion.several_rooms),
    ] = "torch",
    device: Device = None,
    limit: Annotated[int | None, typer.Option(min=1, help="evaluate on so many images only")] = None,
    json: Annotated[Path | None, typer.Option(help="write figures and predictions to this file")] = None,
    recipe: ImageRecipe = None,
    override: ImageOverride = None,
    num_workers: NumWorkers = 4,
    on_broken: OnBroken = "error",
) -> None:
    """Measure a model on the test images of a data set, in float32 (float64 in the reference)."""
    from maam.training.file_evaluation import check_ready, evaluate_file
    from maam.training.rooms import FRAMEWORKS, REFERENCE

    options: dict[str, Any] = {
        "limit": limit,
        **image_options(recipe, override),
        "num_workers": num_workers,
        "on_broken": on_broken,
        "track": track,
    }
    frameworks = split("--framework", framework, (*FRAMEWORKS, REFERENCE))
    check_written("--json", json)
    devices = {name: device if name != REFERENCE or len(frameworks) == 1 else None for name in frameworks}
    for name in frameworks:
        check_ready(name, devices[name])
    found = {
        name: evaluate_file(model, data, root, framework=name, device=devices[name], **options) for name in frameworks
    }
    _print(found)
    if json is not None:
        document = {
            name: {"accuracy": one.accuracy, "loss": one.loss, **one.macro(), "predictions": one.predictions.tolist()}
            for name, one in found.items()
        }
        files.write_text(json, json_format.dumps(document) + "\n")


def _print(found: Mapping[str, Evaluation]) -> None:
    """The figures of each framework, and on how many images each predicts what the first does."""
    table = Table("framework", "images", "accuracy", "top 5", "loss", "macro F1", "precision", "recall")
    for name, one in found.items():
        macro = one.macro()
        shares = (f"{one.accuracy:.2%}", f"{one.top(5):.2%}", f"{one.loss:.4f}")
        table.add_row(
            name, f"{len(one.labels):,}", *shares, *(f"{macro[k]:.4f}" for k in ("f1", "precision", "recall"))
        )
    out = console()
    out.print(table)
    first, *others = found
    expected = found[first].predictions
    for name in others:
        same = int((found[name].predictions == expected).sum())
        out.print(f"{name}: the same prediction as {first} on {same:,} of {len(expected):,} images")
