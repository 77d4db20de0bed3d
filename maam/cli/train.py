"""The commands `maam train`, `maam runs` and `maam data`."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import numpy as np
import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from maam.backend.registry import load_training_backend
from maam.cli import completion, terminal
from maam.cli.options import Device, NumWorkers, OnBroken, Override, Precision, Root, changes, check_written
from maam.cli.terminal import console
from maam.data import download
from maam.errors import MaamError, RecipeError
from maam.training import run as training
from maam.training.compare import read_runs, render_runs, tabulate
from maam.training.loop import CHECKPOINT_STEPS, Observer
from maam.training.resume import find_settings
from maam.training.run_dir import Record
from maam.training.tensorboard import Observers, TensorBoard


def train(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="a preset, a weights file to start from or a spec document (.json); "
            "default: the recipe's model, or with --resume that of the run",
            autocompletion=completion.presets,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="recipe (name or .toml file); default: the preset's recipe, or with --resume that of the run",
            autocompletion=completion.recipes,
        ),
    ] = None,
    override: Override = None,
    data: Annotated[
        str | None, typer.Option(help="cifar10, cifar100, digits or imagefolder", autocompletion=completion.data_sets)
    ] = None,
    root: Root = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="weights to start from (fine-tuning): a weights file, the folder of a run, or a preset with "
            "pretrained weights; default: random weights"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the run; default: runs/MODEL")] = None,
    framework: Annotated[
        str | None,
        typer.Option(
            help="torch or mindspore; default: torch, or with --resume that of the run",
            autocompletion=completion.frameworks,
        ),
    ] = None,
    device: Device = None,
    precision: Precision = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="number of epochs; default: from the recipe; with --resume, a larger number trains longer"),
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(help="end the run and its schedule after this many steps; default: all epochs")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="largest number of images, for a quick trial; default: all")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="images in a step, over all processes; default: from the recipe")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="peak learning rate; default: from the recipe")] = None,
    seed: Annotated[int | None, typer.Option(help="seed of initial weights, order, crops and flips")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue the run in --out")] = False,
    auto_resume: Annotated[
        bool,
        typer.Option(
            "--auto-resume",
            help="continue the run in --out if there is one, else start it",
        ),
    ] = False,
    checkpoint_steps: Annotated[int, typer.Option(min=1, help="steps between two checkpoints")] = CHECKPOINT_STEPS,
    num_workers: NumWorkers = 4,
    on_broken: OnBroken = "error",
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="also write the curves for TensorBoard, to OUT/tensorboard")
    ] = False,
) -> None:
    """Train a model with a recipe, and write log, checkpoints, weights and a report to a folder."""
    given: dict[str, Any] = {"data": data, "weights": weights, "precision": precision, "epochs": epochs, "seed": seed}
    given |= {"batch_size": batch_size, "optimizer.lr": lr, "max_steps": max_steps, "limit": limit}
    changed = changes(given, override)
    name = _name_model(model, changed)
    again = resume or auto_resume
    chosen = find_settings(name, recipe, changed, out=out, root=root, framework=framework, resume=again)
    with Progress("run the same command with --resume to continue from the last checkpoint") as progress:
        training.train(
            None,
            chosen.recipe,
            out=chosen.out,
            root=chosen.root,
            framework=chosen.framework,
            device=device,
            resume="auto" if auto_resume else resume,
            observer=Observers(progress, TensorBoard(chosen.out / "tensorboard")) if tensorboard else progress,
            checkpoint_steps=checkpoint_steps,
            num_workers=num_workers,
            on_broken=on_broken,
        )
    load_training_backend(chosen.framework).leave_processes()
    if progress.started:  # of several processes, only the first one has an observer
        typer.echo(f"{chosen.out}: report.md, final.safetensors, best.safetensors")


def _name_model(model: str | None, changed: dict[str, Any]) -> str | None:
    """Return the model's name, and remove it from the changes of the recipe."""
    named = changed.pop("model", model)
    if model is not None and named != model:
        raise RecipeError(f"-o model={named} contradicts the model {model}; give one of them")
    return named


WIDTH = 120
"""The largest width of the table of runs; in a wider one, the fields of the recipe share a column."""


class Progress(Observer):
    """A progress bar of a run: loss, accuracy, images a second and the time left.

    Args:
        advice: how to continue, shown if the run is interrupted.
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
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self.bar = Bar(*columns, console=self.console, disable=not self.console.is_terminal)

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.stop()
        stopped = kind is KeyboardInterrupt or (isinstance(error, SystemExit) and error.code)
        if stopped and self.started and self.advice:
            word = "interrupted" if kind is KeyboardInterrupt else "stopped"
            print(f"maam: {word}; {self.advice}", file=sys.stderr)

    def named(self, name: str) -> Progress:
        """Return this progress bar, reset for the next of several runs. Its lines start with the name of the run."""
        self.name = f"{name}: "
        self.accuracy = ""
        if self._task is not None:
            self.bar.remove_task(self._task)
        return self

    def note(self, text: str) -> None:
        """Print a message for the user, before the first step."""
        self.console.print(f"{self.name}{text}")

    def estimate(self, seconds: float) -> None:
        """Print the estimated time of the rest of the run, if it is not short."""
        if seconds > terminal.SECONDS:
            left = self._total - self._begin
            duration = timedelta(seconds=round(seconds))
            self.note(f"about {duration} for {left:,} steps, including the evaluation after each epoch")

    def start(self, step: int, steps: int) -> None:
        """Start the bar at a step."""
        self.started = True
        self._total, self._begin, self._began = steps, step, time.monotonic()
        self._task = self.bar.add_task("training", total=steps, completed=step)

    def steps(self, record: Record) -> None:
        """Show loss, accuracy and speed of the latest steps."""
        loss, accuracy = np.mean(record["losses"]), np.mean(record["accuracies"])
        text = f"{self.name}loss {loss:.4f}, accuracy {accuracy:.2%}{self.accuracy}, "
        text += f"{record['images_per_second']:.0f} images/s"
        self.bar.update(self._task, completed=record["step"], description=text)
        if not self.console.is_terminal and time.monotonic() - self._last > terminal.SECONDS:
            self._last = time.monotonic()
            print(f"step {record['step']}: {text}{self._time_left(record['step'])}", flush=True)

    def _time_left(self, step: int) -> str:
        """Return the time left at the speed of this session, such as ", 0:12:30 left"."""
        seconds = (time.monotonic() - self._began) * (self._total - step) / (step - self._begin)
        return f", {timedelta(seconds=round(seconds))} left"

    def epoch(self, record: Record) -> None:
        """Print the test or validation accuracy of an epoch."""
        split, accuracy = record["split"], f"{record['test_accuracy']:.2%}"
        self.accuracy = f" ({split} {accuracy})"
        text = f"{self.name}epoch {record['epoch'] + 1}: {split} accuracy {accuracy}"
        text += f", {split} loss {record['test_loss']:.4f}, {record['seconds']:.0f} s"
        if self.console.is_terminal:
            self.bar.console.print(text)
        else:
            print(text, flush=True)


def runs(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="folders of runs, or folders that contain such folders; default: runs")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="write the table to this .md file, and the curves to a .png file beside it")
    ] = None,
) -> None:
    """Show in a table how the recipes of runs differ and which accuracy each run reached."""
    if out is not None and out.suffix != ".md":
        raise MaamError(f"--out {out}: expected a file name that ends in .md")
    check_written("--out", out)
    found = read_runs(folders or [Path("runs")], on_broken=lambda reason: typer.echo(f"skipped: {reason}", err=True))
    out_console = console()
    head, rows = tabulate(found)
    if _width(head, rows) > min(out_console.width, WIDTH):
        head, rows = tabulate(found, together=True)
    table = Table()
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    out_console.print(table)
    if out is not None:
        render_runs(found, out)


def _width(head: list[str], rows: list[list[str]]) -> int:
    """Return the width of a table without line breaks in its cells."""
    return sum(max(map(len, column)) + 3 for column in zip(head, *rows, strict=True)) + 1


def data(
    name: Annotated[str, typer.Argument(help="cifar10 or cifar100", autocompletion=completion.archives)],
    root: Annotated[Path, typer.Argument(help="folder to unpack it in", metavar="DIR")],
) -> None:
    """Download the official archive of a data set, verify its checksum and unpack it."""
    typer.echo(f"{download(name, root)}: ready")
