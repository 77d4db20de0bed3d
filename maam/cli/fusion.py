"""`maam fuse`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from maam.cli import completion
from maam.cli.consoles import console, track
from maam.cli.images import check_images, test_images
from maam.cli.options import Root, refuse_given, split
from maam.errors import DataError, DeploymentError
from maam.files import check_target


def fuse(
    context: typer.Context,
    src: Annotated[Path, typer.Argument(help="a weights file (.safetensors)", metavar="IN")],
    dst: Annotated[Path, typer.Argument(help="the fused one", metavar="OUT")],
    data: Annotated[
        str | None,
        typer.Option(help="hold OUT to IN on all test images of this data set", autocompletion=completion.image_sets),
    ] = None,
    root: Root = None,
    frameworks: Annotated[
        str, typer.Option(help="comma-separated, for --data", autocompletion=completion.several_frameworks)
    ] = "torch,mindspore",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace OUT where it exists")] = False,
) -> None:
    """Fuse batch norm and branch weights into the convolutions: the same function, smaller and faster."""
    from maam.fusion.files import fuse_file
    from maam.training.rooms import FRAMEWORKS

    check_target(dst, overwrite=overwrite)
    if root is not None and data is None:
        raise DataError(f"--root {root}: name the data set with --data too")
    names = split("--frameworks", frameworks, FRAMEWORKS)
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
    from maam.fusion.files import agreements
    from maam.fusion.rewrite import fuse
    from maam.parity.rooms import make_runners
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
