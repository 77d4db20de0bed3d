"""The commands that prepare a model for deployment: `maam fuse`, `export`, `optimize`, `quantize` and `prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from maam import deploy, fusion
from maam._io import check_target
from maam._messages import listed
from maam.backend.engines import AUTO, ENGINES
from maam.backend.registry import make_runners, trainable_names
from maam.cli import completion
from maam.cli.images import (
    Array,
    Form,
    Predict,
    accuracy,
    check_classifier,
    check_images,
    check_root,
    compare,
    load_images,
)
from maam.cli.options import Classes, Mean, Overwrite, Root, Size, Std, class_names, numbers, refuse_given, split
from maam.cli.terminal import console, track
from maam.deploy.fusing import agreements, fuse_file
from maam.deploy.metadata import check_preprocessing
from maam.errors import DataError, DeploymentError, MaamError, require
from maam.spec.inputs import example_shape
from maam.training.run_dir import find_weights
from maam.weights.exchange import read_whole

MAX_BATCH = 4096
SOURCES = "a weights file (.safetensors), the folder of a run, or a preset with pretrained weights"
Source = Annotated[Path, typer.Argument(help=SOURCES, metavar="IN")]
Target = Annotated[Path, typer.Argument(help="weights file to write", metavar="OUT")]


def fuse(
    context: typer.Context,
    src: Source,
    dst: Target,
    data: Annotated[
        str | None,
        typer.Option(
            help="compare OUT with IN on all test images of this data set before it is written",
            autocompletion=completion.image_sets,
        ),
    ] = None,
    root: Root = None,
    frameworks: Annotated[
        str,
        typer.Option(
            help="comma-separated frameworks for the comparison of --data", autocompletion=completion.several_frameworks
        ),
    ] = ",".join(trainable_names()),
    overwrite: Overwrite = False,
) -> None:
    """Fuse batch norm and branch weights into convolutions, for the same outputs with fewer layers."""
    check_target(dst, overwrite=overwrite)
    check_root(data, root)
    names = split("--frameworks", frameworks, trainable_names())
    src = find_weights(src).path
    if data is None:
        refuse_given(context, ("frameworks",), "this has no effect without --data")
    else:
        _compare_fused(src, data, root, names)
    spec = fuse_file(src, dst, overwrite=overwrite)
    typer.echo(f"{src} -> {dst}: {len(list(spec.walk()))} layers, {spec.num_parameters:,} parameters")


def _compare_fused(src: Path, name: str, root: Path | None, frameworks: list[str]) -> None:
    """Print how the fused form differs from the original in each framework and mode.

    Raises:
        DeploymentError: the prediction of an image differs.
    """
    images, labels = load_images(name, root)
    spec, arrays = read_whole(src)
    check_images(spec, name, images, labels)
    fused, found = fusion.fuse(spec, arrays)
    plain, missing = make_runners(spec, arrays, frameworks, compiled=False)
    pairs = list(zip(plain, make_runners(fused, found, frameworks, compiled=False)[0], strict=True))
    if not pairs:
        raise DeploymentError("; ".join(missing.values()))
    for runner, reason in missing.items():
        typer.echo(f"{runner}: not compared: {reason}")
    table = Table("runner", "images", "different class", "worst abs", "worst rel")
    different = 0
    for one in agreements(pairs, images, track=track):
        different += one.different
        table.add_row(one.runner, f"{one.images:,}", str(one.different), f"{one.absolute:.1e}", f"{one.relative:.1e}")
    console().print(table)
    if different:
        raise DeploymentError(
            f"{src}: the fused form predicts another class for {different} images; nothing was written"
        )


def export(
    src: Annotated[Path, typer.Argument(help=SOURCES, metavar="FILE")],
    dst: Annotated[
        Path | None, typer.Argument(help="file to write; default: FILE with the suffix of --format", metavar="OUT")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(deploy.FORMATS)}; default: from the suffix of OUT", autocompletion=completion.formats
        ),
    ] = None,
    classes: Classes = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    dynamic_size: Annotated[
        bool, typer.Option("--dynamic-size", help="also make height and width dynamic, for models that take any size")
    ] = False,
    fused: Annotated[bool, typer.Option(help="fuse batch norm and branch weights first")] = True,
    overwrite: Overwrite = False,
) -> None:
    """Export a model for an inference engine, and check the written file against the model.

    The batch size of the exported model is dynamic (format air: fixed at 1).
    """
    if dst is None:
        if format not in deploy.FORMATS:
            known = ", ".join(deploy.FORMATS)
            if format is None:
                raise DeploymentError(f"give OUT, a file name with the suffix of a format, or --format: {known}")
            raise DeploymentError(f"--format: expected one of {known}, got {format[:60]!r}")
        dst = src.with_suffix(deploy.FORMATS[format].suffix)
    src = find_weights(src).path
    found = deploy.export(
        src,
        dst,
        format,
        size=size,
        dynamic_size=dynamic_size,
        fused=fused,
        class_names=class_names(classes),
        mean=numbers("--mean", mean),
        std=numbers("--std", std),
        overwrite=overwrite,
    )
    written = ", ".join(map(str, found.files))
    typer.echo(f"{src} -> {written}: {found.format}, largest difference from the model {found.difference:.1e}")


def optimize(
    file: Annotated[Path, typer.Argument(help=SOURCES)],
    engine: Annotated[
        str,
        typer.Option(help=f"comma-separated: {', '.join((*ENGINES, AUTO))}", autocompletion=completion.engines),
    ] = ",".join(ENGINES),
    precision: Annotated[
        str, typer.Option(help="comma-separated: auto, fp32, bf16, fp16", autocompletion=completion.several_precisions)
    ] = "fp32,auto",
    batch: Annotated[str, typer.Option(help="comma-separated batch sizes")] = "1,64",
    size: Size = None,
) -> None:
    """Measure how many times faster than plain PyTorch `maam.torch.optimize` runs a model here, in CPU time."""
    require("torch", "torch")
    from maam.torch.optimization import measure

    file = find_weights(file).path
    spec, _ = read_whole(file)
    engines, precisions = split("--engine", engine), split("--precision", precision)
    batches = [_batch(part) for part in batch.split(",")]
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
        out.print(f"not measured: {reason}")


def _batch(text: str) -> int:
    if not text.strip().isdecimal() or not 1 <= int(text) <= MAX_BATCH:
        raise MaamError(f"--batch: expected comma-separated integers from 1 to {MAX_BATCH}, got {text[:60]!r}")
    return int(text)


def quantize(
    src: Source,
    dst: Annotated[Path, typer.Argument(help="file to write: .xml (OpenVINO) or .onnx (ONNX Runtime)", metavar="OUT")],
    data: Annotated[
        str,
        typer.Option(
            help="data set; its training images calibrate, its test images measure the accuracy",
            autocompletion=completion.image_sets,
        ),
    ],
    root: Root = None,
    engine: Annotated[str | None, typer.Option(help="openvino or onnxruntime; default: from the suffix of OUT")] = None,
    images: Annotated[int, typer.Option(min=deploy.MIN_IMAGES, help="number of calibration images")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="seed of the choice of calibration images")] = 0,
    max_drop: Annotated[
        float, typer.Option(min=0, help="largest allowed loss of accuracy, in percentage points")
    ] = 0.5,
    classes: Classes = None,
    mean: Mean = None,
    std: Std = None,
    overwrite: Overwrite = False,
) -> None:
    """Make an int8 model, and compare its accuracy, size and speed with the original.

    If the int8 model loses more than --max-drop, the layers that int8 disturbs most are kept in float32.

    All images are normalized with --mean and --std. OUT stores --classes, --mean and --std.
    """
    src = find_weights(src).path
    spec, _ = read_whole(src)
    candidates, _ = load_images(data, root, "train")
    tested, labels = load_images(data, root)
    check_images(spec, data, tested, labels)
    check_classifier(spec, tested)
    if images > len(candidates):
        raise DataError(f"--images: expected at most {len(candidates)}, the training images of {data}, got {images}")
    means, deviations = check_preprocessing(tested.shape[1:], numbers("--mean", mean), numbers("--std", std))
    candidates, tested = (_normalize(part, means, deviations) for part in (candidates, tested))

    def judge(before: Predict, after: Predict) -> None:
        lost = 100 * (accuracy("float32", before, tested, labels) - accuracy("int8", after, tested, labels))
        if lost > max_drop:
            raise DeploymentError(
                f"int8 loses {lost:.2f} percentage points of accuracy, more than --max-drop {max_drop}; "
                "nothing was written; use more --images, or increase --max-drop"
            )
        compare({"float32": Form(before), "int8": Form(after)}, tested, labels)

    made = deploy.quantize(
        src,
        dst,
        _choose(candidates, images, seed),
        engine=engine,
        class_names=class_names(classes),
        mean=means,
        std=deviations,
        accept=judge,
        overwrite=overwrite,
    )
    size = f"{made.size_before:,} -> {made.size_after:,} bytes"
    typer.echo(f"{src} -> {', '.join(map(str, made.files))}: {size}, {made.signal_to_noise:.0f} dB")
    if made.float_layers:
        typer.echo(
            f"kept in float32, because int8 disturbs them most: {listed(made.float_layers, len(made.float_layers))}"
        )


def _normalize(images: Array, mean: list[float] | None, std: list[float] | None) -> Array:
    """Subtract the means from the channels of images float32 (N, C, H, W), and divide by the deviations."""
    shape = (-1, 1, 1)
    if mean is not None:
        images = images - np.array(mean, np.float32).reshape(shape)
    return images if std is None else images / np.array(std, np.float32).reshape(shape)


def _choose(images: Array, count: int, seed: int) -> Array:
    return images[np.random.default_rng(seed).permutation(len(images))[:count]]


def prune(
    src: Source,
    dst: Target,
    min_weight: Annotated[float, typer.Option(help="remove branches with a smaller fusion weight")] = 0.0,
    channels: Annotated[
        float,
        typer.Option(help="share of each layer's channels to remove: those with the smallest batch norm scale"),
    ] = 0.0,
    data: Annotated[
        str | None,
        typer.Option(
            help="data set; compare accuracy and speed before and after on its test images",
            autocompletion=completion.image_sets,
        ),
    ] = None,
    root: Root = None,
    overwrite: Overwrite = False,
) -> None:
    """Remove branches with a small fusion weight, and channels with a small batch norm scale.

    Train OUT for some epochs to recover the accuracy: maam train OUT.
    """
    check_target(dst, overwrite=overwrite)
    check_root(data, root)
    src = find_weights(src).path
    spec, arrays = read_whole(src)
    tested = None if data is None else load_images(data, root)
    if data is not None and tested is not None:
        require("torch", "torch")
        check_images(spec, data, *tested)
        check_classifier(spec, tested[0])
    pruned = deploy.prune_file(src, dst, min_weight=min_weight, channels=channels, overwrite=overwrite)
    if tested is not None:
        forms = {"before": (spec, arrays), "after": read_whole(dst)}
        runners = {name: make_runners(*form, ["torch"], compiled=False)[0][0] for name, form in forms.items()}
        compare({name: Form(runner.forward) for name, runner in runners.items()}, *tested)
    parameters, macs = (" -> ".join(f"{count:,}" for count in pair) for pair in (pruned.parameters, pruned.macs))
    typer.echo(f"{src} -> {dst}: {parameters} parameters, {macs} MACs")
    if channels:
        typer.echo(f"--channels {channels:g}: {pruned.channels}")
