"""What attention brings: one small network with each module, one recipe, several seeds: accuracy, cost, latency."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from maam._io import write_text
from maam._system import environment, interleave
from maam.backend.registry import make_runners
from maam.cli.options import Device, Override, changes, split
from maam.cli.train import Progress
from maam.errors import MaamError
from maam.spec import draw, preset
from maam.training import read_runs, train
from maam.training.compare import markdown_table
from maam.training.recipe import Recipe
from maam.training.recipe_files import read_recipe
from maam.training.run_dir import RunFolder

PRESET = "mobilenet_v2"
MODULES = "none,se,eca,cbam,bam,coord,simam,triplet,gct,ema,maf,mafc,mafb,mrap"
HEAD = ("attention", "accuracy, %", "deviation", "difference to none", "parameters", "MACs", "PyTorch", "MindSpore")
Attention = Annotated[str, typer.Option(help="comma-separated names of modules; none for no attention")]


def attention(
    root: Annotated[Path | None, typer.Option(help="folder of CIFAR-10")] = None,
    runs: Annotated[Path, typer.Option(help="folder of the runs; finished runs are not trained again")] = Path(
        "runs/attention"
    ),
    modules: Attention = MODULES,
    seeds: Annotated[str, typer.Option(help="comma-separated")] = "0,1,2",
    width: Annotated[float, typer.Option(min=0.1, help="width multiplier of the MobileNetV2")] = 0.5,
    epochs: Annotated[int, typer.Option(min=1, help="number of epochs")] = 20,
    recipe: Annotated[str, typer.Option(help="name of a recipe or a .toml file, the same for all rows")] = "cifar10",
    override: Override = None,
    device: Device = None,
    collect: Annotated[bool, typer.Option("--collect", help="make the table from finished runs")] = False,
    out: Annotated[Path | None, typer.Option(help="also write the table to this file")] = None,
) -> None:
    """Train a MobileNetV2 for CIFAR-10 with each attention module and print accuracy, cost and latency of each.

    The deviation is the sample standard deviation over the seeds. A difference smaller than twice the standard error of
    the two means is marked as noise. Latency is that of one image on this machine, relative to no attention.
    """
    names, numbers = list(dict.fromkeys(split("--modules", modules))), _seeds(seeds)
    base = read_recipe(recipe).replaced({**changes({"epochs": epochs}, override), "model": PRESET})
    recipes = {name: _recipe_of(base, name, width) for name in names}
    if not collect:
        if root is None:
            raise MaamError("--root: expected the folder that `maam data cifar10 DIR` wrote, got none; add --root DIR")
        _train(recipes, numbers, runs, root, device)
    text = "\n".join(markdown_table(HEAD, _rows(recipes, numbers, runs)))
    note = f"MobileNetV2, width {width}, {epochs} epochs, seeds {seeds}; {json.dumps(environment())}"
    typer.echo(f"{text}\n\n{note}")
    if out is not None:
        write_text(out, f"{text}\n\n{note}\n")


def _seeds(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise MaamError(f"--seeds: expected comma-separated integers such as 0,1,2, got {text!r}")
    return list(dict.fromkeys(map(int, parts)))


def _recipe_of(base: Recipe, name: str, width: float) -> Recipe:
    options = {"attention": None if name == "none" else name, "width_multiplier": width, "cifar": True}
    recipe = base.replaced({"overrides": {**base.overrides, "num_classes": 10, **options}})
    preset(PRESET, **recipe.overrides)  # refuse an unknown name before anything is trained
    return recipe


def _train(recipes: dict[str, Recipe], seeds: Sequence[int], runs: Path, root: Path, device: str | None) -> None:
    """Train the missing runs, seed by seed, so that all rows have the same seeds at any time."""
    with Progress("run the same command again to resume from the last checkpoint") as progress:
        for seed in seeds:
            for name, recipe in recipes.items():
                folder = _folder(runs, name, seed)
                if not folder.final.exists():
                    train(
                        recipe=recipe.replaced({"seed": seed}),
                        out=folder.path,
                        root=root,
                        device=device,
                        resume=folder.run.exists(),
                        observer=progress.named(folder.path.name),
                    )


def _folder(runs: Path, name: str, seed: int) -> RunFolder:
    return RunFolder(runs / f"{name}-seed{seed}")


def _rows(recipes: dict[str, Recipe], seeds: Sequence[int], runs: Path) -> list[tuple[str, ...]]:
    accuracies = {name: _accuracies(runs, name, seeds) for name in recipes}
    latencies = [_latencies(recipes, framework) for framework in ("torch", "mindspore")]
    rows = []
    for name, recipe in recipes.items():
        spec, found = preset(PRESET, **recipe.overrides), accuracies[name]
        mean = f"{statistics.mean(found):.2f}" if found else "not run"
        deviation = f"{statistics.stdev(found):.2f}" if len(found) > 1 else ""
        costs = (f"{spec.num_parameters:,}", f"{spec.macs(spec.input_shape):,}")
        times = (f"{times[name]:.2f}" if times else "not run" for times in latencies)
        rows.append((name, mean, deviation, _difference(found, accuracies.get("none", [])), *costs, *times))
    return rows


def _accuracies(runs: Path, name: str, seeds: Sequence[int]) -> list[float]:
    """Return the last test accuracy of each finished run, in percent."""
    folders = [_folder(runs, name, seed) for seed in seeds]
    return [100 * float(read_runs(one.path)[0].test_accuracy[-1]) for one in folders if one.final.exists()]


def _difference(found: Sequence[float], plain: Sequence[float]) -> str:
    if not found or not plain or found is plain:
        return ""
    difference = statistics.mean(found) - statistics.mean(plain)
    if min(len(found), len(plain)) < 2:
        return f"{difference:+.2f}"
    error = (statistics.variance(found) / len(found) + statistics.variance(plain) / len(plain)) ** 0.5
    return f"{difference:+.2f}" + (" (noise)" if abs(difference) < 2 * error else "")


def _latencies(recipes: dict[str, Recipe], framework: str) -> dict[str, float]:
    """Return the time of each network for one image relative to the first one; empty without the framework."""
    functions: dict[str, Callable[[], object]] = {}
    for name, recipe in recipes.items():
        spec = preset(PRESET, **recipe.overrides)
        runners = make_runners(spec, draw(spec.parameters(), 0), [framework], compiled=False)[0]
        if not runners:
            return {}
        x: np.ndarray[Any, Any] = np.zeros((1, *spec.input_shape), np.float32)
        functions[name] = lambda runner=runners[0], x=x: runner.forward(x)  # type: ignore[misc]
    times = interleave(functions)
    first = statistics.median(times[next(iter(times))])
    return {name: statistics.median(values) / first for name, values in times.items()}
