"""What attention brings: one small network with each module, one recipe, several seeds: accuracy, cost, latency."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from maam._io import replacing, write_text
from maam._system import environment, interleave
from maam.backend.registry import make_runners
from maam.cli.options import Device, Override, changes, split
from maam.cli.train import Progress
from maam.errors import MaamError
from maam.spec import draw, preset
from maam.training import read_runs, train
from maam.training.compare import differences, markdown_table
from maam.training.recipe import Recipe
from maam.training.recipe_files import read_recipe
from maam.training.run_dir import RunFolder

MODULES = "none,se,eca,cbam,bam,coord,simam,triplet,gct,ema,maf,mafc,mafb,mrap"
HEAD = ("attention", "accuracy, %", "deviation", "difference to none", "parameters", "MACs", "PyTorch", "MindSpore")
FILE = "attention.json"
Accuracies = dict[str, dict[str, float]]
Attention = Annotated[str, typer.Option(help="comma-separated names of modules; none for no attention")]


def attention(
    root: Annotated[Path | None, typer.Option(help="folder of CIFAR-10")] = None,
    runs: Annotated[Path, typer.Option(help="folder of the runs")] = Path("runs/attention"),
    model: Annotated[str, typer.Option(help="preset that takes attention=")] = "maam_net_s",
    modules: Attention = MODULES,
    seeds: Annotated[str, typer.Option(help="comma-separated")] = "0,1,2",
    epochs: Annotated[int, typer.Option(min=1, help="number of epochs")] = 4,
    recipe: Annotated[str, typer.Option(help="name of a recipe or a .toml file, the same for all rows")] = "maam_net",
    override: Override = None,
    device: Device = None,
    collect: Annotated[bool, typer.Option("--collect", help="make table and picture without training")] = False,
    out: Annotated[Path, typer.Option(help=f"folder of {FILE}, attention.md and attention.png")] = Path("runs"),
) -> None:
    """Train a small network with each attention module and print accuracy, cost and latency of each.

    The accuracies are kept in attention.json; a run that is in it is not trained again. The deviation is the sample
    standard deviation over the seeds. A difference smaller than twice the standard error of the two means is marked as
    noise. Latency is that of one image on this machine, relative to no attention.
    """
    names, numbers = list(dict.fromkeys(split("--modules", modules))), _seeds(seeds)
    base = read_recipe(recipe).replaced(changes({"model": model, "epochs": epochs}, override))
    recipes = {name: _recipe_of(base, name) for name in names}
    out.mkdir(parents=True, exist_ok=True)
    if not collect:
        if root is None:
            raise MaamError("--root: expected the folder that `maam data cifar10 DIR` wrote, got none; add --root DIR")
        _train(recipes, base, numbers, runs, root, device, out / FILE)
    found = _read(out / FILE, base)
    accuracies = {name: [found[name][str(n)] for n in numbers if str(n) in found.get(name, {})] for name in names}
    text = "\n".join(markdown_table(HEAD, _rows(recipes, accuracies)))
    note = f"{base.model}, {base.epochs} epochs, seeds {seeds}; {json.dumps(environment())}"
    typer.echo(f"{text}\n\n{note}")
    write_text(out / "attention.md", f"{text}\n\n{note}\n")
    _draw(accuracies, out / "attention.png", f"{base.model} on CIFAR-10, {base.epochs} epochs")


def _seeds(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise MaamError(f"--seeds: expected comma-separated integers such as 0,1,2, got {text!r}")
    return list(dict.fromkeys(map(int, parts)))


def _recipe_of(base: Recipe, name: str) -> Recipe:
    recipe = base.replaced({"overrides": {**base.overrides, "attention": None if name == "none" else name}})
    preset(recipe.model or "", **recipe.overrides)  # refuse an unknown name before anything is trained
    return recipe


def _read(path: Path, recipe: Recipe) -> Accuracies:
    """Return the accuracies in a file, in percent, by module and seed; all of them have the same recipe."""
    if not path.exists():
        return {}
    document = json.loads(path.read_text("utf-8"))
    if changed := differences(Recipe(**document["recipe"]), recipe):
        field, one, other = changed[0]
        raise MaamError(f"{path}: {field} is {one!r} in the file and {other!r} now; choose another --out")
    found: Accuracies = document["accuracies"]
    return found


def _add(path: Path, recipe: Recipe, name: str, seed: int, accuracy: float) -> None:
    """Add the accuracy of a run to a file, to which another process may have added others."""
    found = _read(path, recipe)
    found.setdefault(name, {})[str(seed)] = accuracy
    write_text(path, json.dumps({"recipe": recipe.model_dump(), "accuracies": found}, indent=1) + "\n")


def _train(
    recipes: Mapping[str, Recipe],
    base: Recipe,
    seeds: Sequence[int],
    runs: Path,
    root: Path,
    device: str | None,
    path: Path,
) -> None:
    """Train the missing runs, seed by seed, so that all rows have the same seeds at any time."""
    with Progress("run the same command again to resume from the last checkpoint") as progress:
        for seed, name in itertools.product(seeds, recipes):
            if str(seed) in _read(path, base).get(name, {}):
                continue
            folder = RunFolder(runs / f"{name}-seed{seed}")
            if not folder.final.exists():
                train(
                    recipe=recipes[name].replaced({"seed": seed}),
                    out=folder.path,
                    root=root,
                    device=device,
                    resume=folder.run.exists(),
                    observer=progress.named(folder.path.name),
                )
            _add(path, base, name, seed, round(100 * float(read_runs(folder.path)[0].test_accuracy[-1]), 2))


def _rows(recipes: Mapping[str, Recipe], accuracies: Mapping[str, list[float]]) -> list[tuple[str, ...]]:
    latencies = [_latencies(recipes, framework) for framework in ("torch", "mindspore")]
    rows = []
    for name, recipe in recipes.items():
        spec, found = preset(recipe.model or "", **recipe.overrides), accuracies[name]
        mean = f"{statistics.mean(found):.2f}" if found else "not run"
        deviation = f"{statistics.stdev(found):.2f}" if len(found) > 1 else ""
        costs = (f"{spec.num_parameters:,}", f"{spec.macs(spec.input_shape):,}")
        times = (f"{times[name]:.2f}" if times else "not run" for times in latencies)
        rows.append((name, mean, deviation, _difference(found, accuracies.get("none", [])), *costs, *times))
    return rows


def _difference(found: Sequence[float], plain: Sequence[float]) -> str:
    if not found or not plain or found is plain:
        return ""
    difference = statistics.mean(found) - statistics.mean(plain)
    if min(len(found), len(plain)) < 2:
        return f"{difference:+.2f}"
    error = (statistics.variance(found) / len(found) + statistics.variance(plain) / len(plain)) ** 0.5
    return f"{difference:+.2f}" + (" (noise)" if abs(difference) < 2 * error else "")


def _latencies(recipes: Mapping[str, Recipe], framework: str) -> dict[str, float]:
    """Return the time of each network for one image relative to the first one; empty without the framework."""
    functions: dict[str, Callable[[], object]] = {}
    for name, recipe in recipes.items():
        spec = preset(recipe.model or "", **recipe.overrides)
        runners = make_runners(spec, draw(spec.parameters(), 0), [framework], compiled=False)[0]
        if not runners:
            return {}
        x: np.ndarray[Any, Any] = np.zeros((1, *spec.input_shape), np.float32)
        functions[name] = lambda runner=runners[0], x=x: runner.forward(x)  # type: ignore[misc]
    times = interleave(functions)
    first = statistics.median(times[next(iter(times))])
    return {name: statistics.median(values) / first for name, values in times.items()}


def _draw(accuracies: Mapping[str, list[float]], path: Path, title: str) -> None:
    """Draw the runs of each module as points, and the range of the runs without attention as a band."""
    from matplotlib.figure import Figure

    names = sorted(
        (name for name in accuracies if accuracies[name]), key=lambda name: statistics.mean(accuracies[name])
    )
    figure = Figure(layout="constrained", figsize=(7, 1 + 0.3 * len(names)))
    axis = figure.subplots()
    if plain := accuracies.get("none"):
        axis.axvspan(min(plain), max(plain), color="tab:orange", alpha=0.25, label="range without attention")
        axis.legend(loc="lower right")
    for place, name in enumerate(names):
        axis.plot(accuracies[name], [place] * len(accuracies[name]), "o", color="tab:blue", alpha=0.5)
        axis.plot(statistics.mean(accuracies[name]), place, "|", color="black", markersize=14)
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="test accuracy, % (points: seeds; line: mean)", title=title)
    axis.grid(axis="x", alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
