"""`maam train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maam.cli import completion
from maam.cli.options import Device, Framework, NumWorkers, OnBroken, Override, Precision, Root, changes
from maam.cli.training_progress import Progress
from maam.errors import RecipeError

if TYPE_CHECKING:
    from maam.training.recipe import Recipe


def train(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="a preset (`maam list`), a weights file to train on, or a spec document (.json)",
            autocompletion=completion.presets,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="a recipe's name or a .toml file; the preset's default", autocompletion=completion.recipes),
    ] = None,
    override: Override = None,
    data: Annotated[
        str | None, typer.Option(help="cifar10, cifar100, digits or imagefolder", autocompletion=completion.data_sets)
    ] = None,
    root: Root = None,
    weights: Annotated[
        Path | None, typer.Option(help="weights file or run folder to start from (fine-tuning); drawn otherwise")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the run; runs/MODEL otherwise")] = None,
    framework: Framework = "torch",
    device: Device = None,
    precision: Precision = None,
    epochs: Annotated[int | None, typer.Option(help="the recipe's otherwise")] = None,
    batch_size: Annotated[int | None, typer.Option(help="over all processes; the recipe's otherwise")] = None,
    lr: Annotated[float | None, typer.Option(help="the optimizer's, at its peak; the recipe's otherwise")] = None,
    seed: Annotated[int | None, typer.Option(help="of initial weights, order, crops and flips")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the last checkpoint")] = False,
    checkpoint_steps: Annotated[int, typer.Option(min=1, help="steps between two checkpoints")] = 200,
    num_workers: NumWorkers = 4,
    on_broken: OnBroken = "error",
) -> None:
    """Train a model by a recipe; log, checkpoints, weights and a report go to a folder."""
    from maam.training.rooms import find_room
    from maam.training.session import train
    from maam.weights.naming import names_file

    given: dict[str, Any] = {"data": data, "weights": weights, "precision": precision, "epochs": epochs, "seed": seed}
    given |= {"batch_size": batch_size, "optimizer.lr": lr}
    name, found = _chosen(model, recipe, changes(given, override))
    folder = out or Path("runs") / (Path(name).stem if names_file(name) else name)
    with Progress("the same command with --resume goes on from the last checkpoint") as progress:
        train(
            name,
            found,
            out=folder,
            root=root,
            framework=framework,
            device=device,
            resume=resume,
            observer=progress,
            checkpoint_steps=checkpoint_steps,
            num_workers=num_workers,
            on_broken=on_broken,
        )
    find_room(framework).leave_world()
    if progress.started:  # of several processes the first alone is told
        typer.echo(f"{folder}: report.md, final.safetensors, best.safetensors")


def _chosen(model: str | None, recipe: str | None, changed: dict[str, Any]) -> tuple[str, Recipe]:
    """What is trained, and the recipe with what the command changes in it."""
    from maam.training.library import read_recipe
    from maam.training.network import find_recipe, name_model

    model = _one_model(model, changed)
    found = read_recipe(recipe) if recipe is not None else find_recipe(name_model(model))
    found = found.replaced(changed)
    return name_model(model, found), found


def _one_model(given: str | None, changed: dict[str, Any]) -> str | None:
    """The preset that the command names, as PRESET or by `-o model=`."""
    named = changed.get("model", given)
    if given is not None and named != given:
        raise RecipeError(f"-o model={named} contradicts the preset {given}; name one of them")
    return named if isinstance(named, str) else given
