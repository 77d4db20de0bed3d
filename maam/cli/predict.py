"""The commands `maam evaluate` and `maam predict`."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from maam import _io
from maam.backend.registry import backend_names, trainable_names
from maam.cli import completion
from maam.cli.options import (
    Classes,
    Device,
    ImageOverride,
    ImageRecipe,
    NumWorkers,
    OnBroken,
    Root,
    Trained,
    check_outputs,
    check_picture,
    class_names,
    image_options,
    split,
)
from maam.cli.terminal import console, track
from maam.plots import draw_attention
from maam.training.attention_maps import attention_maps as find_attention_maps
from maam.training.attention_maps import check_gates
from maam.training.evaluate import Evaluation, check_device, evaluate_file
from maam.training.predict import predict_files

FIGURES = ("f1", "precision", "recall")


def evaluate(
    model: Trained,
    data: Annotated[
        str | None,
        typer.Option(
            help="cifar10, cifar100, digits or imagefolder; default: that of the run or of the preset's recipe",
            autocompletion=completion.data_sets,
        ),
    ] = None,
    root: Root = None,
    framework: Annotated[
        str,
        typer.Option(
            help="torch, mindspore, reference; several are comma-separated", autocompletion=completion.several_backends
        ),
    ] = "torch",
    device: Device = None,
    limit: Annotated[int | None, typer.Option(min=1, help="number of images; default: all")] = None,
    classes: Classes = None,
    mirror: Annotated[
        bool, typer.Option("--mirror", help="also show the accuracy with mirror images averaged, beside the plain one")
    ] = False,
    json: Annotated[
        Path | None, typer.Option(help="write figures and predictions to this file; replaced if it exists")
    ] = None,
    recipe: ImageRecipe = None,
    override: ImageOverride = None,
    num_workers: NumWorkers = 4,
    on_broken: OnBroken = "error",
) -> None:
    """Measure accuracy and loss on the test images of a data set, in float32 (reference: float64)."""
    options: dict[str, Any] = {
        "limit": limit,
        "class_names": class_names(classes),
        "mirror": mirror,
        **image_options(recipe, override),
        "num_workers": num_workers,
        "on_broken": on_broken,
        "track": track,
    }
    frameworks = split("--framework", framework, backend_names())
    check_outputs({"--json": json}, [model])
    # among several frameworks, those that run on the CPU only ignore --device
    many = len(frameworks) > 1
    devices = {name: None if many and name not in trainable_names() else device for name in frameworks}
    for name in frameworks:
        check_device(name, devices[name])
    found = {
        name: evaluate_file(model, data, root, framework=name, device=devices[name], **options) for name in frameworks
    }
    _print_figures(found)
    if json is not None:
        document = {
            name: {"accuracy": one.accuracy, "loss": one.loss, **one.macro(), "predictions": one.predictions.tolist()}
            | ({"mirrored_accuracy": one.mirrored_accuracy} if mirror else {})
            for name, one in found.items()
        }
        _io.write_text(json, json_format.dumps(document) + "\n")


def _print_figures(found: Mapping[str, Evaluation]) -> None:
    """Print the figures of each framework, and how many predictions are those of the first one."""
    mirror = all(one.mirrored is not None for one in found.values())
    columns = ("framework", "images", "accuracy", *(["mirrored"] if mirror else []), "top 5", "loss")
    table = Table(*columns, "macro F1", "precision", "recall")
    for name, one in found.items():
        macro = one.macro()
        averaged = [f"{one.mirrored_accuracy:.2%}"] if mirror else []
        shares = (f"{one.accuracy:.2%}", *averaged, f"{one.top(5):.2%}", f"{one.loss:.4f}")
        table.add_row(name, f"{len(one.labels):,}", *shares, *(f"{macro[figure]:.4f}" for figure in FIGURES))
    out = console()
    out.print(table)
    first, *others = found
    expected = found[first].predictions
    for note in found[first].notes:
        out.print(note)
    for name in others:
        same = int((found[name].predictions == expected).sum())
        out.print(f"{name}: the same prediction as {first} on {same:,} of {len(expected):,} images")


def predict(
    model: Trained,
    images: Annotated[list[Path], typer.Argument(help="image files, or folders of image files")],
    framework: Annotated[
        str, typer.Option(help="torch, mindspore or reference", autocompletion=completion.backends)
    ] = "torch",
    device: Device = None,
    top: Annotated[int, typer.Option(min=1, help="number of classes to show for each image")] = 3,
    classes: Classes = None,
    json: Annotated[
        Path | None, typer.Option(help="write all probabilities to this file; replaced if it exists")
    ] = None,
    attention_maps: Annotated[
        Path | None, typer.Option(help="draw how much of each position the gates keep, to this image file")
    ] = None,
    recipe: ImageRecipe = None,
    override: ImageOverride = None,
    num_workers: NumWorkers = 4,
    on_broken: OnBroken = "error",
) -> None:
    """Show the most probable classes of image files."""
    check_outputs({"--json": json, "--attention-maps": attention_maps}, [model, *images])
    check_picture("--attention-maps", attention_maps)
    if attention_maps is not None:
        check_gates(model)
    preparation = image_options(recipe, override)
    found = predict_files(
        model,
        images,
        framework=framework,
        device=device,
        class_names=class_names(classes),
        **preparation,
        num_workers=num_workers,
        on_broken=on_broken,
        track=track,
    )
    if attention_maps is not None:
        maps = find_attention_maps(model, [one.path for one in found], **preparation)
        rows = [(one.image, one.maps) for one in maps]
        draw_attention(rows, attention_maps, f"{Path(model).name}: share of each position that the gates keep")
    table = Table("image", "class", "probability")
    for one in found:
        names, shares = zip(*one.top(top), strict=True)
        table.add_row(Text(one.path), Text("\n".join(names)), "\n".join(f"{share:.1%}" for share in shares))
    console().print(table)
    if json is not None:
        probabilities = {one.path: one.probabilities.tolist() for one in found}
        document = {"class_names": list(found[0].class_names), "probabilities": probabilities}
        _io.write_text(json, json_format.dumps(document) + "\n")
