"""The commands `maam list`, `maam info` and `maam convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from maam._messages import listed
from maam.cli import completion
from maam.cli.options import Model, Size
from maam.cli.terminal import console
from maam.errors import PresetError
from maam.spec import Model as ModelSpec
from maam.spec import list_presets, preset, preset_options
from maam.spec.inputs import example_shape
from maam.spec.presets import aliases


def list_command(
    pattern: Annotated[str, typer.Argument(help="shell wildcard", autocompletion=completion.presets)] = "*",
) -> None:
    """List the presets with input size, classes, parameters and multiply-accumulates (MACs)."""
    table = Table("preset", "input", "output", "parameters", "MACs")
    for name in list_presets(pattern):
        spec = preset(name)
        macs = f"{spec.macs(spec.input_shape):,}"
        table.add_row(name, _shape(spec.input_shape), str(spec.num_classes), f"{spec.num_parameters:,}", macs)
    if not table.row_count:
        raise PresetError(f"no preset matches {pattern!r}; `maam list` shows all")
    console().print(table)


def info(
    model: Model,
    size: Size = None,
    depth: Annotated[int, typer.Option(min=1, help="levels of nesting to show")] = 9,
    as_json: Annotated[bool, typer.Option("--json", help="print the spec as JSON instead")] = False,
) -> None:
    """Show the layers of a model with shapes, parameters and MACs, and the options of a preset."""
    from maam.weights.lookup import find_spec

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
        out.print(f"options: {options}")
    name = listed([spec.name if isinstance(spec, ModelSpec) else spec.kind])
    total = f"{spec.num_parameters:,} parameters, {spec.macs(shape):,} MACs"
    out.print(
        f"{name}: {_shape(shape)} to {_shape(spec.output_shape(shape))}, {total}",
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def convert(
    src: Annotated[
        Path,
        typer.Argument(
            help="file to read (.safetensors, .pth, .pt, .pth.tar, .ckpt), folder of a run, or preset with pretrained "
            "weights"
        ),
    ],
    dst: Annotated[Path, typer.Argument(help="file to write, in the format of its suffix; replaced if it exists")],
    spec: Annotated[
        str | None,
        typer.Option(
            help="architecture, if SRC has none: a preset or a spec document (.json)",
            autocompletion=completion.presets,
        ),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float16, bfloat16, float32 or float64; default: the dtypes of SRC")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="set of weights, if SRC has several, such as state_dict_ema; default: a moving average"),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(help="prefix of the names to remove, such as model; default: one that all names have"),
    ] = None,
) -> None:
    """Convert weights between maam's, PyTorch's and MindSpore's formats, or to another dtype."""
    from maam.backend import convert as conversion
    from maam.training.run_dir import find_weights
    from maam.weights.lookup import find_spec

    src = find_weights(src).path
    conversion.convert(src, dst, None if spec is None else find_spec(spec)[0], dtype=dtype, key=key, prefix=prefix)
    typer.echo(f"{src} -> {dst}")
