"""`maam quantize`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from maam._io import check_target
from maam.backend.engines import ENGINES
from maam.cli import terminal
from maam.cli.models import Classes, Mean, Std, class_names, numbers
from maam.cli.options import Root, refuse_given, split
from maam.cli.predict import Array, check_classifier, check_images, split_images, test_images
from maam.cli.terminal import console, track
from maam.deploy.exporting import FORMATS, check_preprocessing
from maam.deploy.quantization import MIN_IMAGES
from maam.errors import DataError, DeploymentError, MaamError, require
from maam.spec import Node
from maam.spec.inputs import example_shape
from maam.weights.exchange import read_whole


def export(
    src: Annotated[Path, typer.Argument(help="a weights file, of either framework", metavar="FILE")],
    dst: Annotated[Path | None, typer.Argument(help="what to write; FILE with another suffix", metavar="OUT")] = None,
    format: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(FORMATS)}; by OUT's suffix otherwise", autocompletion=terminal.formats),
    ] = None,
    classes: Classes = None,
    mean: Mean = None,
    std: Std = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="height and width; a model's own, or 32 for a layer, otherwise")
    ] = None,
    fused: Annotated[bool, typer.Option(help="fuse batch norm and branch weights first")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace OUT where it exists")] = False,
) -> None:
    """Write a model for an inference engine, with a free batch (air: 1); the file is run against the model first."""
    from maam.deploy import export as write

    if dst is None:
        if format not in FORMATS:
            raise DeploymentError(f"--format: expected one of {', '.join(FORMATS)}, or a name for OUT that tells it")
        if not src.is_file():
            raise DeploymentError(f"{src}: no such file")
        dst = src.with_suffix(FORMATS[format].suffix)
    found = write(
        src,
        dst,
        format,
        size=size,
        fused=fused,
        class_names=class_names(classes),
        mean=numbers("--mean", mean),
        std=numbers("--std", std),
        overwrite=overwrite,
    )
    written = ", ".join(map(str, found.files))
    typer.echo(f"{src} -> {written}: {found.format}, worst difference to the model {found.difference:.1e}")


def fuse(
    context: typer.Context,
    src: Annotated[Path, typer.Argument(help="a weights file (.safetensors)", metavar="IN")],
    dst: Annotated[Path, typer.Argument(help="the fused one", metavar="OUT")],
    data: Annotated[
        str | None,
        typer.Option(help="hold OUT to IN on all test images of this data set", autocompletion=terminal.image_sets),
    ] = None,
    root: Root = None,
    frameworks: Annotated[
        str, typer.Option(help="comma-separated, for --data", autocompletion=terminal.several_frameworks)
    ] = "torch,mindspore",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace OUT where it exists")] = False,
) -> None:
    """Fuse batch norm and branch weights into the convolutions: the same function, smaller and faster."""
    from maam.backend.registry import trainable_names
    from maam.deploy.fusing import fuse_file

    check_target(dst, overwrite=overwrite)
    if root is not None and data is None:
        raise DataError(f"--root {root}: name the data set with --data too")
    names = split("--frameworks", frameworks, trainable_names())
    if data is None:
        refuse_given(context, ("frameworks",), "without --data nothing is compared; leave it out")
    if data is not None:
        _hold(src, data, root, names)
    spec = fuse_file(src, dst, overwrite=overwrite)
    typer.echo(f"{src} -> {dst}: {len(list(spec.walk()))} layers, {spec.num_parameters:,} parameters")


def _hold(src: Path, name: str, root: Path | None, frameworks: list[str]) -> None:
    """Print the agreement of both forms in each framework and mode.

    Raises:
        DeploymentError: an image gets another class.
    """
    from maam.backend.registry import make_runners
    from maam.deploy.fusing import agreements
    from maam.fusion.rewrite import fuse
    from maam.weights.exchange import read_whole

    images, labels = test_images(name, root)
    spec, arrays = read_whole(src)
    check_images(spec, name, images, labels)
    fused, found = fuse(spec, arrays)
    plain, missing = make_runners(spec, arrays, frameworks, compiled=False)
    pairs = list(zip(plain, make_runners(fused, found, frameworks, compiled=False)[0], strict=True))
    if not pairs:
        raise DeploymentError("; ".join(missing.values()))
    for name, reason in missing.items():
        typer.echo(f"{name}: not compared: {reason}")
    table = Table("runner", "images", "another class", "worst abs", "worst rel")
    different = 0
    for one in agreements(pairs, images, track=track):
        different += one.different
        table.add_row(one.runner, f"{one.images:,}", str(one.different), f"{one.absolute:.1e}", f"{one.relative:.1e}")
    console().print(table)
    if different:
        raise DeploymentError(f"{src}: {different} images get another class from the fused form; nothing was written")


MAX_BATCH = 4096


def optimize(
    file: Annotated[Path, typer.Argument(help="a weights file (.safetensors)")],
    engine: Annotated[str, typer.Option(help=f"comma-separated, of: {', '.join(ENGINES)}")] = ",".join(ENGINES),
    precision: Annotated[
        str, typer.Option(help="comma-separated: auto, fp32, bf16, fp16", autocompletion=terminal.several_precisions)
    ] = "fp32,auto",
    batch: Annotated[str, typer.Option(help="comma-separated sizes of batches")] = "1,64",
    size: Annotated[
        int | None, typer.Option(min=1, help="height and width; a model's own, or 32 for a layer, otherwise")
    ] = None,
) -> None:
    """Measure here, by CPU time, what `maam.torch.optimize` makes of a model: times faster than plain PyTorch."""
    require("torch", "torch")
    spec, _ = read_whole(file)
    engines, precisions = split("--engine", engine), split("--precision", precision)
    batches = [_batch(part) for part in batch.split(",")]
    measure = import_module("maam.torch.optimization").measure
    table = Table("engine", "precision", *(f"batch {count}" for count in batches))
    rows: dict[tuple[str, str], list[str]] = {}
    for column, count in enumerate(batches):
        speeds, reasons = measure(file, (count, *example_shape(spec, size)), engines, precisions)
        for key, value in speeds.items():
            rows.setdefault(key, [""] * len(batches))[column] = f"{value:.2f}"
    if not any(key[0] != "eager" for key in rows):
        raise DeploymentError("; ".join(dict.fromkeys(reasons)))
    for key, cells in rows.items():
        table.add_row(*key, *cells)
    out = console()
    out.print(table)
    for reason in dict.fromkeys(reasons):
        out.print(f"not measured: {reason}", highlight=False, markup=False)


def _batch(text: str) -> int:
    if not text.strip().isdecimal() or not 1 <= int(text) <= MAX_BATCH:
        raise MaamError(f"--batch: expected sizes from 1 to {MAX_BATCH}, comma-separated, got {text[:60]!r}")
    return int(text)


def prune(
    src: Annotated[Path, typer.Argument(help="a weights file, not fused", metavar="IN")],
    dst: Annotated[Path, typer.Argument(help="the pruned one", metavar="OUT")],
    min_weight: Annotated[float, typer.Option(help="drop branches of a smaller fusion weight")] = 0.0,
    channels: Annotated[float, typer.Option(help="share of channels to drop, of small batch-norm scale")] = 0.0,
    data: Annotated[
        str | None,
        typer.Option(
            help="show accuracy and speed before and after on its test images", autocompletion=terminal.image_sets
        ),
    ] = None,
    root: Root = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace OUT where it exists")] = False,
) -> None:
    """Drop branches of small fusion weight and channels of small batch-norm scale; train on afterwards."""
    from maam.deploy import prune_file

    check_target(dst, overwrite=overwrite)
    if data is None and root is not None:
        raise DataError(f"--root {root}: name the data set with --data too")
    spec, arrays = read_whole(src)
    tested = None if data is None else test_images(data, root)
    if data is not None and tested is not None:
        require("torch", "torch")
        check_images(spec, data, *tested)
        check_classifier(spec, tested[0])
    pruned = prune_file(src, dst, min_weight=min_weight, channels=channels, overwrite=overwrite)
    if tested is not None:
        _show(spec, arrays, dst, *tested)
    parameters, macs = (" -> ".join(f"{count:,}" for count in pair) for pair in (pruned.parameters, pruned.macs))
    typer.echo(f"{src} -> {dst}: {parameters} parameters, {macs} MACs")


def _show(spec: Node, arrays: Any, dst: Path, images: Any, labels: Any) -> None:
    from maam.backend.registry import make_runners
    from maam.cli.parity import Form, compare

    forms = {"before": (spec, arrays), "after": read_whole(dst)}
    runners = {name: make_runners(*form, ["torch"], compiled=False)[0][0] for name, form in forms.items()}
    compare({name: Form(runner.forward) for name, runner in runners.items()}, images, labels)


def quantize(
    src: Annotated[Path, typer.Argument(help="a weights file, of either framework", metavar="IN")],
    dst: Annotated[Path, typer.Argument(help=".xml (OpenVINO) or .onnx (ONNX Runtime)", metavar="OUT")],
    data: Annotated[
        str,
        typer.Option(
            help="data set: calibrates on training images, is judged on all test images",
            autocompletion=terminal.image_sets,
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
    from maam.cli.parity import Form, Predict, compare
    from maam.deploy import quantize as make

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
