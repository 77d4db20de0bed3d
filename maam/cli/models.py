"""`maam list` and `maam info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from maam._messages import listed
from maam.backend import convert as weights
from maam.cli import terminal
from maam.cli.terminal import console
from maam.errors import DeploymentError, PresetError
from maam.spec import Model, list_presets, preset, preset_options
from maam.spec.inputs import example_shape
from maam.spec.presets import aliases
from maam.weights.lookup import find_spec


def list_command(
    pattern: Annotated[str, typer.Argument(help="shell wildcard", autocompletion=terminal.presets)] = "*",
) -> None:
    """List the presets, with parameters and multiply-accumulates."""
    table = Table("preset", "input", "output", "parameters", "MACs")
    for name in list_presets(pattern):
        spec = preset(name)
        macs = f"{spec.macs(spec.input_shape):,}"
        table.add_row(name, _shape(spec.input_shape), str(spec.num_classes), f"{spec.num_parameters:,}", macs)
    if not table.row_count:
        raise PresetError(f"no preset matches {pattern!r}; `maam list` shows all")
    console().print(table)


def info(
    model: Annotated[
        str,
        typer.Argument(
            help="a preset's name, a weights file or a spec document (.json)", autocompletion=terminal.presets
        ),
    ],
    size: Annotated[
        int | None, typer.Option(min=1, help="height and width; a model's own, or 32 for a layer, otherwise")
    ] = None,
    depth: Annotated[int, typer.Option(min=1, help="levels of nesting to show")] = 9,
    as_json: Annotated[bool, typer.Option("--json", help="print the spec as JSON instead")] = False,
) -> None:
    """Show the layers of a model with shapes, parameters and multiply-accumulates, and a preset's options."""
    spec, _ = find_spec(model)
    if as_json:
        typer.echo(spec.to_json(indent=1))
        return
    shape = example_shape(spec, size)
    table = Table("layer", "kind", "output", "parameters", "MACs")
    for path, node, given, output in spec.summary(shape):
        if path and path.count(".") < depth:
            table.add_row(path, node.kind, _shape(output), f"{node.num_parameters:,}", f"{node.macs(given):,}")
    out = console()
    out.print(table)
    if model in list_presets() or model in aliases():
        options = ", ".join(f"{option}={default!r}" for option, default in preset_options(model).items())
        out.print(f"options: {options}", highlight=False, markup=False)
    name = listed([spec.name if isinstance(spec, Model) else spec.kind])
    total = f"{spec.num_parameters:,} parameters, {spec.macs(shape):,} MACs"
    out.print(
        f"{name}: {_shape(shape)} to {_shape(spec.output_shape(shape))}, {total}",
        highlight=False,
        markup=False,
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


Classes = Annotated[str | None, typer.Option(help="class names: comma-separated, or a file of lines")]
Mean = Annotated[str | None, typer.Option(help="of the channels in [0, 1], comma-separated")]
Std = Annotated[str | None, typer.Option(help="of the channels in [0, 1], comma-separated")]


def class_names(text: str | None) -> list[str] | None:
    """The names that `--classes` gives, None where it is not given.

    Raises:
        DeploymentError: it names a file that there is not, or that is no text.
    """
    if text is None:
        return None
    path = Path(text)
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise DeploymentError(f"--classes {path}: cannot be read: it is no UTF-8 text") from None
    except OSError as error:  # among others: a list of names is longer than names of files can be
        if "," not in text and (path.suffix or len(path.parts) > 1):
            reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
            raise DeploymentError(
                f"--classes {text}: {reason}; give a file of lines, or comma-separated names"
            ) from None
        return [name.strip() for name in text.split(",")]


def numbers(option: str, text: str | None) -> list[float] | None:
    """The numbers that an option gives, None where it is not given.

    Raises:
        DeploymentError: one is no number.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise DeploymentError(f"{option}: expected numbers, comma-separated, got {text[:60]!r}") from None


def convert(
    src: Annotated[Path, typer.Argument(help=".safetensors, .pth, .pt, .pth.tar or .ckpt")],
    dst: Annotated[Path, typer.Argument(help="the same; the suffix says which; a file there is replaced")],
    spec: Annotated[
        str | None, typer.Option(help="a preset's name or a spec document (.json)", autocompletion=terminal.presets)
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="round to float16, bfloat16, float32 or float64; else dtypes stay")
    ] = None,
) -> None:
    """Convert weights between maam's file, PyTorch's and MindSpore's, or to a smaller file of half precision."""
    weights.convert(src, dst, None if spec is None else find_spec(spec)[0], dtype=dtype)
    typer.echo(f"{src} -> {dst}")
