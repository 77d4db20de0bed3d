"""`maam predict`."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from maam import files
from maam.cli import completion
from maam.cli.consoles import console, track
from maam.cli.metadata import Classes, class_names
from maam.cli.options import Device, ImageOverride, ImageRecipe, NumWorkers, OnBroken, check_written, image_options


def predict(
    model: Annotated[str, typer.Argument(help="a weights file, or the folder of a run (its final weights)")],
    images: Annotated[list[Path], typer.Argument(help="image files, or folders of them")],
    framework: Annotated[
        str, typer.Option(help="torch, mindspore or reference", autocompletion=completion.rooms)
    ] = "torch",
    device: Device = None,
    top: Annotated[int, typer.Option(min=1, help="classes to show of each image")] = 3,
    classes: Classes = None,
    json: Annotated[Path | None, typer.Option(help="write all probabilities to this file")] = None,
    recipe: ImageRecipe = None,
    override: ImageOverride = None,
    num_workers: NumWorkers = 0,
    on_broken: OnBroken = "error",
) -> None:
    """Name the most probable classes of image files."""
    from maam.training.prediction import predict_files

    check_written("--json", json)
    found = predict_files(
        model,
        images,
        framework=framework,
        device=device,
        class_names=class_names(classes),
        **image_options(recipe, override),
        num_workers=num_workers,
        on_broken=on_broken,
        track=track,
    )
    table = Table("image", "class", "probability")
    for one in found:
        names, numbers = zip(*one.top(top), strict=True)
        table.add_row(Text(one.path), Text("\n".join(names)), "\n".join(f"{share:.1%}" for share in numbers))
    console().print(table)
    if json is not None:
        shares = {one.path: one.probabilities.tolist() for one in found}
        document = {"class_names": list(found[0].class_names), "probabilities": shares}
        files.write_text(json, json_format.dumps(document) + "\n")
