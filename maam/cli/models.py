"""`maam list` and `maam info`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from maam.cli import completion
from maam.cli.consoles import console
from maam.errors import PresetError
from maam.names import listed
from maam.spec import Model, list_presets, preset, preset_options
from maam.spec.inputs import example_shape
from maam.spec.presets import aliases
from maam.weights.naming import find_spec


def list_command(
    pattern: Annotated[str, typer.Argument(help="shell wildcard", autocompletion=completion.presets)] = "*",
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
            help="a preset's name, a weights file or a spec document (.json)", autocompletion=completion.presets
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
