"""`maam prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from maam.cli import completion
from maam.cli.images import check_classifier, check_images, test_images
from maam.cli.options import Root
from maam.errors import DataError, require
from maam.files import check_target
from maam.spec import Node
from maam.weights.exchange import read_whole


def prune(
    src: Annotated[Path, typer.Argument(help="a weights file, not fused", metavar="IN")],
    dst: Annotated[Path, typer.Argument(help="the pruned one", metavar="OUT")],
    min_weight: Annotated[float, typer.Option(help="drop branches of a smaller fusion weight")] = 0.0,
    channels: Annotated[float, typer.Option(help="share of channels to drop, of small batch-norm scale")] = 0.0,
    data: Annotated[
        str | None,
        typer.Option(
            help="show accuracy and speed before and after on its test images", autocompletion=completion.image_sets
        ),
    ] = None,
    root: Root = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace OUT where it exists")] = False,
) -> None:
    """Drop branches of small fusion weight and channels of small batch-norm scale; train on afterwards."""
    from maam.pruning import prune_file

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
    from maam.cli.comparison import Form, compare
    from maam.parity.rooms import make_runners

    forms = {"before": (spec, arrays), "after": read_whole(dst)}
    runners = {name: make_runners(*form, ["torch"], compiled=False)[0][0] for name, form in forms.items()}
    compare({name: Form(runner.forward) for name, runner in runners.items()}, images, labels)
