"""`maam predict`."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from maam import _io, data
from maam.cli import terminal
from maam.cli.models import Classes, class_names
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
from maam.cli.terminal import console, track
from maam.errors import DataError, ShapeError, SpecError
from maam.spec import Node, input_rule

if TYPE_CHECKING:
    from maam.training.evaluate import Evaluation


Array = np.ndarray[Any, Any]
NAMES = ("digits", "cifar10", "cifar100")


def check_images(spec: Node, name: str, images: Array, labels: Array) -> None:
    """Refuse a data set whose images (N, C, H, W) or labels (N,) the model cannot take.

    Raises:
        ShapeError: the images have the wrong size or number of channels.
        SpecError: there are more or fewer classes than logits.
    """
    try:
        input_rule(spec).check(images.shape)
        output = spec.output_shape(images.shape[1:])
    except ShapeError as error:
        raise ShapeError(f"--data {name}: {error}") from None
    if len(output) == 1 and labels.max() + 1 != output[0]:  # a map has no classes, and is not trained
        raise SpecError(f"--data {name}: {labels.max() + 1} classes, but the model has {output[0]}")


def check_classifier(spec: Node, images: Array) -> None:
    """Refuse a model of maps, of which there is no accuracy, before anything is written.

    Raises:
        SpecError: its output for `images` (N, C, H, W) is no vector.
    """
    output = spec.output_shape(images.shape[1:])
    if len(output) != 1:
        raise SpecError(f"--data shows accuracies, which a model of maps {output} has not; take a classifier")


def test_images(name: str, root: Path | None) -> tuple[Array, Array]:
    """`split_images` of the test split."""
    return split_images(name, root, "test")


def split_images(name: str, root: Path | None, split: str) -> tuple[Array, Array]:
    """The images of a split of a data set, float32 (N, C, H, W) in [0, 1], and their labels, int32 (N,).

    Raises:
        DataError: there is no such data set, or it is not whole; a root is missing.
    """
    if name not in NAMES:
        raise DataError(f"--data: expected one of {', '.join(NAMES)}, got {name!r}")
    if name != "digits" and root is None:
        raise DataError(f"--data {name} needs --root DIR, the folder that `maam data {name} DIR` wrote")
    dataset = data.digits(split) if name == "digits" else getattr(data, name)(root, split)
    return data.to_float(dataset.images), dataset.labels


def evaluate(
    model: Annotated[str, typer.Argument(help="a weights file, or the folder of a run (its final weights)")],
    data: Annotated[
        str, typer.Option(help="cifar10, cifar100, digits or imagefolder", autocompletion=terminal.data_sets)
    ],
    root: Root = None,
    framework: Annotated[
        str,
        typer.Option(help="comma-separated, of: torch, mindspore, reference", autocompletion=terminal.several_backends),
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
    from maam.backend.registry import backend_names, trainable_names
    from maam.training.evaluate import check_ready, evaluate_file

    options: dict[str, Any] = {
        "limit": limit,
        **image_options(recipe, override),
        "num_workers": num_workers,
        "on_broken": on_broken,
        "track": track,
    }
    frameworks = split("--framework", framework, backend_names())
    check_written("--json", json)
    # among several frameworks, those that run on the CPU only ignore --device
    many = len(frameworks) > 1
    devices = {name: None if many and name not in trainable_names() else device for name in frameworks}
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
        _io.write_text(json, json_format.dumps(document) + "\n")


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


def predict(
    model: Annotated[str, typer.Argument(help="a weights file, or the folder of a run (its final weights)")],
    images: Annotated[list[Path], typer.Argument(help="image files, or folders of them")],
    framework: Annotated[
        str, typer.Option(help="torch, mindspore or reference", autocompletion=terminal.backends)
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
    from maam.training.predict import predict_files

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
        _io.write_text(json, json_format.dumps(document) + "\n")
