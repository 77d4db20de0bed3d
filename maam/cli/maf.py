"""The command `maam maf`, with the options of the MAF authors' script; it calls `maam train` or `maam evaluate`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from maam.backend.convert import convert
from maam.cli import completion
from maam.cli.options import Device, Framework, NumWorkers, OnBroken, Override, parse_overrides, refuse_given
from maam.cli.predict import evaluate as evaluate_command
from maam.cli.train import train as train_command
from maam.errors import WeightsError
from maam.spec import preset
from maam.training.recipe_files import read_recipe
from maam.weights.lookup import FINAL

RECIPE = "imagenet_maf"
PUBLISHED = ("*.pth.tar", "*.pth")


def maf(
    context: typer.Context,
    arch: Annotated[
        str,
        typer.Option(
            "--arch", "-a", help="MAFCV1, MAFCV2, MAFCV3 or another preset", autocompletion=completion.presets
        ),
    ] = "MAFCV1",
    evaluate: Annotated[bool, typer.Option("--evaluate", "-e", help="evaluate on root/val instead of training")] = (
        False
    ),
    root: Annotated[Path, typer.Option(help="folder of ImageNet, which contains train and val")] = Path(
        "../../../datasets/ImageNet"
    ),
    out: Annotated[
        Path | None, typer.Option(help="folder of the run, or of the published checkpoint; default: runs/ARCH_")
    ] = None,
    override: Override = None,
    framework: Framework = "torch",
    device: Device = None,
    epochs: Annotated[int | None, typer.Option(help="number of epochs; default: from the recipe")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue from the last checkpoint")] = False,
    num_workers: NumWorkers = 4,
    on_broken: OnBroken = "error",
) -> None:
    """Train a MobileNet with MAFC on ImageNet as its authors do (recipe imagenet_maf), or evaluate it."""
    folder = out or Path("runs") / f"{arch}_"
    if not evaluate:
        train_command(
            arch,
            RECIPE,
            override=override,
            root=root,
            out=folder,
            framework=framework,
            device=device,
            epochs=epochs,
            resume=resume,
            num_workers=num_workers,
            on_broken=on_broken,
        )
        return
    refuse_given(
        context, ("epochs", "resume"), "this has no effect with -e (--evaluate), which does not train; remove it"
    )
    trained = (folder / FINAL).exists()
    with tempfile.TemporaryDirectory() as temporary:
        evaluate_command(
            str(folder if trained else _published(folder, arch, override, Path(temporary))),
            "imagefolder",
            root,
            framework=framework,
            device=device,
            recipe=None if trained else RECIPE,
            override=[text for text in override or () if text.startswith("images.")],
            num_workers=num_workers,
            on_broken=on_broken,
        )


def _published(folder: Path, arch: str, override: list[str] | None, temporary: Path) -> Path:
    """Convert the published checkpoint in `folder` to a weights file in `temporary`, and return its path."""
    found = sorted(path for pattern in PUBLISHED for path in folder.glob(pattern))
    if len(found) != 1:
        problem = f"{len(found)} checkpoints" if found else "no checkpoint"
        raise WeightsError(
            f"{folder}: {problem}; expected one of {', '.join((FINAL, *PUBLISHED))}: "
            f"train with `maam maf -a {arch}`, or put the published checkpoint there"
        )
    recipe = read_recipe(RECIPE).replaced(parse_overrides(override))
    target = temporary / "published.safetensors"
    convert(found[0], target, preset(arch, **recipe.overrides))
    return target
