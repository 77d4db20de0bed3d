"""`maam quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from maam.cli import completion
from maam.cli.images import Array, check_classifier, check_images, split_images, test_images
from maam.cli.metadata import Classes, Mean, Std, class_names, numbers
from maam.cli.options import Root
from maam.errors import DataError, DeploymentError
from maam.exporting.metadata import check_preprocessing
from maam.quantization.quantizer import MIN_IMAGES
from maam.weights.exchange import read_whole


def quantize(
    src: Annotated[Path, typer.Argument(help="a weights file, of either framework", metavar="IN")],
    dst: Annotated[Path, typer.Argument(help=".xml (OpenVINO) or .onnx (ONNX Runtime)", metavar="OUT")],
    data: Annotated[
        str,
        typer.Option(
            help="data set: calibrates on training images, is judged on all test images",
            autocompletion=completion.image_sets,
        ),
    ],
    root: Root = None,
    engine: Annotated[str | None, typer.Option(help="openvino or onnxruntime; by OUT's suffix otherwise")] = None,
    images: Annotated[int, typer.Option(min=MIN_IMAGES, help="calibration images")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="of their choice")] = 0,
    max_drop: Annotated[float, typer.Option(min=0, help="points of accuracy that may be lost")] = 0.5,
    classes: Classes = None,
    mean: Mean = None,
    std: Std = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace OUT where it exists")] = False,
) -> None:
    """Make an int8 model, and show what it costs and brings: accuracy, size, speed.

    --classes, --mean and --std go into OUT; all images are normalised by --mean and --std first.
    """
    from maam.cli.comparison import Form, Predict, compare
    from maam.quantization import quantize as make

    spec, _ = read_whole(src)
    candidates, _ = split_images(data, root, "train")
    tested, labels = test_images(data, root)
    check_images(spec, data, tested, labels)
    check_classifier(spec, tested)
    if images > len(candidates):
        raise DataError(f"--images {images}: {data} has {len(candidates)} training images")
    means, deviations = check_preprocessing(tested.shape[1:], numbers("--mean", mean), numbers("--std", std))
    candidates, tested = (_normalised(part, means, deviations) for part in (candidates, tested))

    def judge(before: Predict, after: Predict) -> None:
        found = compare({"float32": Form(before), "int8": Form(after)}, tested, labels)
        lost = 100 * (found["float32"] - found["int8"])
        if lost > max_drop:
            raise DeploymentError(
                f"int8 loses {lost:.2f} points of accuracy, allowed are {max_drop}: nothing was written; "
                "calibrate on more images, or allow more with --max-drop"
            )

    made = make(
        src,
        dst,
        _chosen(candidates, images, seed),
        engine=engine,
        class_names=class_names(classes),
        mean=means,
        std=deviations,
        accept=judge,
        overwrite=overwrite,
    )
    size = f"{made.size_before:,} -> {made.size_after:,} bytes"
    typer.echo(f"{src} -> {', '.join(map(str, made.files))}: {size}, {made.signal_to_noise:.0f} dB")


def _normalised(images: Array, mean: list[float] | None, std: list[float] | None) -> Array:
    """Images (N, C, H, W) less the mean of each channel, divided by its deviation, float32."""
    shape = (-1, 1, 1)
    if mean is not None:
        images = images - np.array(mean, np.float32).reshape(shape)
    return images if std is None else images / np.array(std, np.float32).reshape(shape)


def _chosen(images: Array, count: int, seed: int) -> Array:
    return images[np.random.default_rng(seed).permutation(len(images))[:count]]
