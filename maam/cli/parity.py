"""`maam parity`."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from maam import _io
from maam._io import check_target
from maam._system import interleave, ratios
from maam.cli import terminal
from maam.cli.options import Root, check_written, split
from maam.cli.predict import check_images, test_images
from maam.cli.terminal import console, track
from maam.errors import DataError, MaamError, PortingError, require
from maam.parity import STAGES, Report, Verdict, check
from maam.parity.report import draw_depth
from maam.spec import Node
from maam.spec.node import unique
from maam.training.evaluate import evaluate
from maam.weights.lookup import find_spec

Array = np.ndarray[Any, Any]
Predict = Callable[[Array], Array]
TEST_BATCH = 250


class Form(NamedTuple):
    """A model as a function of NumPy arrays, and what else there is to say of it."""

    predict: Predict
    facts: tuple[str, ...] = ()


def compare(
    forms: Mapping[str, Form],
    images: Array,
    labels: Array,
    headings: tuple[str, ...] = (),
    batches: tuple[int, ...] = (1, 32),
) -> dict[str, float]:
    """Print accuracy, facts and speed (CPU time, the first form = 1), and return the accuracies, 0 to 1."""
    accuracies = {name: _accuracy(name, form.predict, images, labels) for name, form in forms.items()}
    speeds = [_speeds(forms, images[:count]) for count in batches]
    table = Table("form", "accuracy", *headings, *(f"times faster, batch {count}" for count in batches))
    for name, form in forms.items():
        table.add_row(name, f"{accuracies[name]:.2%}", *form.facts, *(f"{speed[name]:.2f}" for speed in speeds))
    console().print(table)
    return accuracies


def _accuracy(name: str, predict: Predict, images: Array, labels: Array) -> float:
    starts = range(0, len(images), TEST_BATCH)
    watched = track(starts, f"{name}, accuracy", len(starts))
    return evaluate(predict, ((images[s : s + TEST_BATCH], labels[s : s + TEST_BATCH]) for s in watched)).accuracy


def _speeds(forms: Mapping[str, Form], x: Array) -> dict[str, float]:
    functions = {name: functools.partial(form.predict, x) for name, form in forms.items()}
    return ratios(interleave(functions, clock=time.process_time), next(iter(forms)))


_COLOURS = {Verdict.PASS: "green", Verdict.FAIL: "bold red"}
_PICTURES = (".png", ".svg", ".pdf")


def parity(
    model: Annotated[
        str,
        typer.Argument(
            help="a preset's name, a weights file or a spec document (.json)", autocompletion=terminal.presets
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(help="digits, cifar10 or cifar100; random images otherwise", autocompletion=terminal.image_sets),
    ] = None,
    root: Root = None,
    frameworks: Annotated[
        str, typer.Option(help="comma-separated", autocompletion=terminal.several_frameworks)
    ] = "torch,mindspore",
    stages: Annotated[
        str, typer.Option(help=f"comma-separated, of: {', '.join(STAGES)}", autocompletion=terminal.stages)
    ] = ",".join(STAGES),
    compiled: Annotated[bool, typer.Option(help="compare torch.compile too")] = True,
    batch_size: Annotated[int, typer.Option(min=2, max=4096)] = 4,
    steps: Annotated[int, typer.Option(min=2, help="length of the free run")] = 50,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    json: Annotated[Path | None, typer.Option(help="write everything to this file")] = None,
    plot: Annotated[Path | None, typer.Option(help="draw the difference along the depth to this file")] = None,
    require_all: Annotated[bool, typer.Option("--require-all", help="fail where a stage did not run")] = False,
) -> None:
    """Prove that the frameworks agree, or name the first layer where they do not; exit status 1 on failure."""
    spec, arrays = find_spec(model)
    _check_targets(json, plot)
    images, labels = _images(spec, data, root)
    log = Console(stderr=True)
    report = check(
        spec,
        arrays,
        images=images,
        labels=labels,
        frameworks=split("--frameworks", frameworks),
        stages=split("--stages", stages),
        compiled=compiled,
        seed=seed,
        batch_size=batch_size,
        steps=steps,
        progress=lambda stage: log.print(f"{stage} ...", highlight=False),
    )
    print_report(report, f"{data} images" if data else "random images")
    if json is not None:
        _io.write_text(json, report.to_json())
    if plot is not None:
        draw_depth(report, plot)
    if not report.passed:
        raise typer.Exit(1)
    if require_all and not report.complete:
        raise MaamError("--require-all: not every stage ran; the table says NOT RUN, and why")


def print_report(report: Report, images: str) -> None:
    """The table and the verdict."""
    table = Table("stage", "runner", "worst abs", "worst rel", "bound", "verdict", "remarks")
    for row, cells in zip(report.rows, report.lines(), strict=True):
        colour = _COLOURS.get(row.verdict, "yellow")
        table.add_row(*cells[:5], Text(cells[5], colour), Text(cells[6]))
    out = console()
    out.print(table)
    versions = ", ".join(f"{name} {version}" for name, version in report.environment.items())
    out.print(f"{report.title}, {images}; {versions}", highlight=False, markup=False)
    if report.failures:
        out.print(f"FAIL: the first layer that differs is {report.first_difference or 'not known'}", style="bold red")
    elif not report.passed:
        out.print("Nothing was compared.", style="yellow")
    else:
        out.print("All that was compared agrees.", style="green")


def _check_targets(json: Path | None, plot: Path | None) -> None:
    """Refuse before the run what could not be written after it."""
    check_written("--json", json)
    check_written("--plot", plot)
    if plot is not None and plot.suffix not in _PICTURES:
        raise MaamError(f"--plot {plot}: expected a name that ends in {', '.join(_PICTURES)}")
    if plot is not None:
        require("matplotlib", "train")


def _images(spec: Node, data: str | None, root: Path | None) -> tuple[Array | None, Array | None]:
    if data is None:
        if root is not None:
            raise DataError(f"--root {root}: name the data set with --data too")
        return None, None
    images, labels = test_images(data, root)
    check_images(spec, data, images, labels)
    return images, labels


def port(
    torch_module: Annotated[str, typer.Argument(help="package.module:callable that makes the PyTorch module")],
    mindspore_cell: Annotated[str, typer.Argument(help="the same for the MindSpore cell")],
    input: Annotated[str, typer.Option(help="shape of one sample, such as 3,224,224")],
    names: Annotated[Path | None, typer.Option(help="JSON: {PyTorch's path: MindSpore's path}")] = None,
    skip: Annotated[str, typer.Option(help="comma-separated paths of layers without a counterpart")] = "",
    direction: Annotated[str, typer.Option(help="or mindspore-to-torch")] = "torch-to-mindspore",
    transfer: Annotated[bool, typer.Option(help="copy the weights; else the models are only compared")] = True,
    out: Annotated[Path | None, typer.Option(help="write the weights that were copied: .safetensors")] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=4096)] = 4,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="training steps to compare")] = 3,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace --out where it exists")] = False,
) -> None:
    """Move your own model's weights between the frameworks and prove that both agree; this runs your code.

    Exit status 1, and no file, where they do not agree.
    """
    from maam import porting

    shape, mapping = _shape(input), _names(names)
    if out is not None:
        if not transfer:
            raise PortingError("--no-transfer: no weights are copied, so there are none to write; leave --out out")
        if out.suffix != ".safetensors":
            raise PortingError(f"--out {out}: expected a name that ends in .safetensors")
        check_target(out, overwrite=overwrite)
    models = {"mindspore": porting.load_factory(mindspore_cell), "torch": porting.load_factory(torch_module)}
    log = Console(stderr=True)
    report = porting.port(
        models["torch"],
        models["mindspore"],
        input_shape=shape,
        names=mapping,
        skip=[part.strip() for part in skip.split(",") if part.strip()],
        direction=direction,
        transfer=transfer,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        progress=lambda stage: log.print(f"{stage} ...", highlight=False),
    )
    console().print(f"{len(report.pairs)} layers paired {report.how}", highlight=False)
    print_report(report, "random inputs")
    if not report.passed:
        raise typer.Exit(1)
    if out is not None:
        target = direction.rpartition("-")[2]
        porting.save_weights(target, models[target], out)
        typer.echo(f"{target}'s weights -> {out}")


def _shape(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise MaamError(f"--input: expected positive integers such as 3,224,224, got {text!r}")
    return tuple(map(int, parts))


def _names(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        found: Any = json.loads(path.read_text("utf-8-sig"), object_pairs_hook=unique)
    except OSError as error:
        raise PortingError(f"--names {path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise PortingError(f"--names {path}: no JSON: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise PortingError(f"--names {path}: expected an object of PyTorch's paths and MindSpore's")
    return found
