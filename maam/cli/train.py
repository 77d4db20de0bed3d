"""`maam train`."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from maam.cli import terminal
from maam.cli.options import Device, Framework, NumWorkers, OnBroken, Override, Precision, Root, changes, check_written
from maam.cli.terminal import console
from maam.data import download
from maam.errors import MaamError, RecipeError
from maam.training.loop import Observer
from maam.training.run_dir import Record

if TYPE_CHECKING:
    from maam.training.recipe import Recipe


class Progress(Observer):
    """An observer of a run with a progress bar: loss, accuracy, images a second, time left.

    `advice` says, where a run is interrupted, what goes on with it.
    """

    def __init__(self, advice: str = "") -> None:
        self.advice = advice
        self.console = terminal.console()
        self.name = ""
        self.accuracy = ""
        self.started = False
        self._task: Any = None
        self._last = time.monotonic()
        self._total, self._begin, self._began = 0, 0, 0.0
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Bar(*columns, console=self.console, disable=not self.console.is_terminal)

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.stop()
        if kind is KeyboardInterrupt and self.started and self.advice:
            print(f"maam: interrupted; {self.advice}", file=sys.stderr)

    def named(self, name: str) -> Progress:
        """The same for the next of several runs, whose lines begin with its name."""
        self.name = f"{name}: "
        self.accuracy = ""
        if self._task is not None:
            self.bar.remove_task(self._task)
        return self

    def note(self, text: str) -> None:
        """Show it."""
        self.console.print(f"{self.name}{text}", highlight=False, markup=False)

    def start(self, step: int, steps: int) -> None:
        """The run stands at `step` of `steps`."""
        self.started = True
        self._total, self._begin, self._began = steps, step, time.monotonic()
        self._task = self.bar.add_task("training", total=steps, completed=step)

    def steps(self, record: Record) -> None:
        """Show how the last steps went."""
        loss, right = np.mean(record["losses"]), np.mean(record["accuracies"])
        text = f"{self.name}loss {loss:.4f}, accuracy {right:.2%}{self.accuracy}, "
        text += f"{record['images_per_second']:.0f} images/s"
        self.bar.update(self._task, completed=record["step"], description=text)
        if not self.console.is_terminal and time.monotonic() - self._last > terminal.SECONDS:
            self._last = time.monotonic()
            print(f"step {record['step']}: {text}{self._left(record['step'])}", flush=True)

    def _left(self, step: int) -> str:
        """The time left, at the rate of this session so far, such as ", 0:12:30 left"."""
        seconds = (time.monotonic() - self._began) * (self._total - step) / (step - self._begin)
        return f", {timedelta(seconds=round(seconds))} left"

    def epoch(self, record: Record) -> None:
        """Show how an epoch ended."""
        self.accuracy = f" (test {record['test_accuracy']:.2%})"
        text = f"{self.name}epoch {record['epoch'] + 1}: test accuracy {record['test_accuracy']:.2%}"
        text += f", test loss {record['test_loss']:.4f}, {record['seconds']:.0f} s"
        if self.console.is_terminal:
            self.bar.console.print(text, highlight=False)
        else:
            print(text, flush=True)


def train(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="a preset (`maam list`), a weights file to train on, or a spec document (.json)",
            autocompletion=terminal.presets,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="a recipe's name or a .toml file; the preset's default", autocompletion=terminal.recipes),
    ] = None,
    override: Override = None,
    data: Annotated[
        str | None, typer.Option(help="cifar10, cifar100, digits or imagefolder", autocompletion=terminal.data_sets)
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
    from maam.backend.registry import load_training_backend
    from maam.training.run import train
    from maam.weights.lookup import names_file

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
    load_training_backend(framework).leave_processes()
    if progress.started:  # of several processes the first alone is told
        typer.echo(f"{folder}: report.md, final.safetensors, best.safetensors")


def _chosen(model: str | None, recipe: str | None, changed: dict[str, Any]) -> tuple[str, Recipe]:
    """What is trained, and the recipe with what the command changes in it."""
    from maam.training.recipe_files import find_recipe, name_model, read_recipe

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


def runs(
    folders: Annotated[list[Path], typer.Argument(help="folders of runs, or folders that hold such")],
    out: Annotated[Path | None, typer.Option(help="a .md file for the table; the curves go beside it as .png")] = None,
) -> None:
    """Show runs side by side: in what their recipes differ, and how far each came."""
    from maam.training.compare import read_runs, render_runs, tabulate

    if out is not None and out.suffix != ".md":
        raise MaamError(f"--out {out}: expected a file that ends with .md")
    check_written("--out", out)
    found = read_runs(folders)
    head, rows = tabulate(found)
    table = Table()
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console().print(table)
    if out is not None:
        render_runs(found, out)


def data(
    name: Annotated[str, typer.Argument(help="cifar10 or cifar100", autocompletion=terminal.archives)],
    root: Annotated[Path, typer.Argument(help="where to put it", metavar="DIR")],
) -> None:
    """Download a data set's official archive, check its sum and unpack it."""
    typer.echo(f"{download(name, root)}: ready")
