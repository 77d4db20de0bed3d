"""`maam port`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from maam.cli.consoles import console
from maam.cli.parity import print_report
from maam.errors import MaamError, PortingError
from maam.files import check_target
from maam.spec.document import unique


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
