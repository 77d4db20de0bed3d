"""Comparison of attention modules, and of the parts of MAAM, in one small network: one recipe, several seeds."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

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
CONTROL = "1 branch"
WIDTHS = (30, 60, 90)
PARTS: dict[str, dict[str, Any]] = {
    CONTROL: {"num_agents": 1},
    "2 branches": {"num_agents": 2},
    "3 branches": {},
    "5 branches": {"num_agents": 5},
    "3 branches, mean": {"fusion": "mean"},
    "3 branches, dynamic": {"fusion": "dynamic"},
    "3 branches, kernels 1, 3, 5": {"kernel_sizes": (1, 3, 5), "channels": (24, 54, 81)},
    "3 branches, reduce layer": {"reduce": True, "channels": (30, 57, 84)},
}
"""Options of `maam_net_s`; where the widths differ from `WIDTHS`, they give about the same multiply-accumulates."""
Accuracies = dict[str, dict[str, float]]
Rows = Mapping[str, Recipe]
Root = Annotated[Path | None, typer.Option(help="folder of CIFAR-10")]
Seeds = Annotated[str, typer.Option(help="comma-separated")]
Epochs = Annotated[int, typer.Option(min=1, help="number of epochs")]
Collect = Annotated[bool, typer.Option("--collect", help="make table and picture without training")]
Attention = Annotated[str, typer.Option(help="comma-separated names of modules; none for no attention")]


class Study(NamedTuple):
    """Variants of a network to compare.

    Attributes:
        name: the name of the files.
        heading: the heading of the first column.
        first: the row that the others are compared with.
        base: the recipe that all rows share.
        rows: the recipe of each row.
        seeds: the seeds.
    """

    name: str
    heading: str
    first: str
    base: Recipe
    rows: Rows
    seeds: Sequence[int]


def attention(
    root: Root = None,
    runs: Annotated[Path, typer.Option(help="folder of the runs")] = Path("runs/attention"),
    model: Annotated[str, typer.Option(help="preset that takes attention=")] = "maam_net_s",
    modules: Attention = MODULES,
    seeds: Seeds = "0,1,2",
    epochs: Epochs = 3,
    recipe: Annotated[str, typer.Option(help="name of a recipe or a .toml file, the same for all rows")] = "maam_net",
    override: Override = None,
    device: Device = None,
    collect: Collect = False,
    out: Annotated[Path, typer.Option(help="folder of attention.json, attention.md and attention.png")] = Path("runs"),
) -> None:
    """Train a small network with each attention module and print accuracy, cost and latency of each.

    The accuracies are kept in attention.json; a run that is in it is not trained again. The deviation is the sample
    standard deviation over the seeds. p is the p-value of the difference from the first row, by Dunnett's test: the
    probability that at least one row would differ this much if none really did. Latency is that of one image on
    this machine, relative to the first row.
    """
    names, numbers = list(dict.fromkeys(split("--modules", modules))), _seeds(seeds)
    base = read_recipe(recipe).replaced(changes({"model": model, "epochs": epochs}, override))
    rows = {name: _variant(base, {"attention": None if name == "none" else name}) for name in names}
    _compare(Study("attention", "attention", "none", base, rows, numbers), root, runs, device, collect, out)


def parts(
    root: Root = None,
    runs: Annotated[Path, typer.Option(help="folder of the runs")] = Path("runs/parts"),
    seeds: Seeds = "0,1,2",
    epochs: Epochs = 3,
    override: Override = None,
    device: Device = None,
    collect: Collect = False,
    out: Annotated[Path, typer.Option(help="folder of parts.json, parts.md and parts.png")] = Path("runs"),
) -> None:
    """Train a narrow maam_net_s with other branches, kernels and fusion, and about the same number of MACs.

    The accuracies are kept in parts.json; the other options are those of `python -m benchmarks attention`. The
    first row is the control with one branch.
    """
    given = changes({"model": "maam_net_s", "epochs": epochs}, override)
    base = read_recipe("maam_net").replaced({"overrides.channels": list(WIDTHS), **given})
    rows = {name: _variant(base, options) for name, options in PARTS.items()}
    _compare(Study("parts", "parts", CONTROL, base, rows, _seeds(seeds)), root, runs, device, collect, out)


def _compare(study: Study, root: Path | None, runs: Path, device: str | None, collect: bool, out: Path) -> None:
    """Train the missing runs of a study, print its table, and write it with its picture."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{study.name}.json"
    if not collect:
        if root is None:
            raise MaamError("--root: expected the folder that `maam data cifar10 DIR` wrote, got none; add --root DIR")
        _train(study, runs, root, device, path)
    found = _read(path, study.base)
    accuracies = {
        name: [found[name][str(seed)] for seed in study.seeds if str(seed) in found.get(name, {})]
        for name in study.rows
    }
    text = "\n".join(markdown_table(_head(study), _table(study, accuracies)))
    seeds = ",".join(map(str, study.seeds))
    note = f"{study.base.model}, {study.base.epochs} epochs, seeds {seeds}; {json.dumps(environment())}"
    typer.echo(f"{text}\n\n{note}")
    write_text(out / f"{study.name}.md", f"{text}\n\n{note}\n")
    title = f"{study.base.model} on CIFAR-10, {study.base.epochs} epochs"
    _draw(accuracies, study.first, out / f"{study.name}.png", title)


def _seeds(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise MaamError(f"--seeds: expected comma-separated integers such as 0,1,2, got {text!r}")
    return list(dict.fromkeys(map(int, parts)))


def _variant(base: Recipe, options: Mapping[str, Any]) -> Recipe:
    recipe = base.replaced({"overrides": {**base.overrides, **options}})
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


def _train(study: Study, runs: Path, root: Path, device: str | None, path: Path) -> None:
    """Train the missing runs, seed by seed, so that all rows have the same seeds at any time."""
    with Progress("run the same command again to resume from the last checkpoint") as progress:
        for seed, name in itertools.product(study.seeds, study.rows):
            if str(seed) in _read(path, study.base).get(name, {}):
                continue
            folder = RunFolder(runs / f"{name.replace(', ', '-').replace(' ', '_')}-seed{seed}")
            if not folder.final.exists():
                train(
                    recipe=study.rows[name].replaced({"seed": seed}),
                    out=folder.path,
                    root=root,
                    device=device,
                    resume=folder.run.exists(),
                    observer=progress.named(folder.path.name),
                )
            accuracy = round(100 * float(read_runs(folder.path)[0].test_accuracy[-1]), 2)
            _add(path, study.base, name, seed, accuracy)


def _head(study: Study) -> tuple[str, ...]:
    costs = ("parameters", "MACs", "PyTorch", "MindSpore")
    return (study.heading, "accuracy, %", "deviation", f"difference from {study.first}", "p", *costs)


def _table(study: Study, accuracies: Mapping[str, list[float]]) -> list[tuple[str, ...]]:
    latencies = [_latencies(study.rows, framework) for framework in ("torch", "mindspore")]
    control, p_values, rows = accuracies.get(study.first, []), _p_values(accuracies, study.first), []
    for name, recipe in study.rows.items():
        spec, found = preset(recipe.model or "", **recipe.overrides), accuracies[name]
        mean = f"{statistics.mean(found):.2f}" if found else "not run"
        if 0 < len(found) < len(study.seeds):
            mean += f" ({len(found)} of {len(study.seeds)} seeds)"
        deviation = f"{statistics.stdev(found):.2f}" if len(found) > 1 else ""
        compared = found and control and name != study.first
        difference = f"{statistics.mean(found) - statistics.mean(control):+.2f}" if compared else ""
        p_value = ""
        if name in p_values:
            p_value = f"{p_values[name]:.3f}" if p_values[name] >= 0.001 else "< 0.001"
        costs = (f"{spec.num_parameters:,}", f"{spec.macs(spec.input_shape):,}")
        times = (f"{times[name]:.2f}" if times else "not run" for times in latencies)
        rows.append((name, mean, deviation, difference, p_value, *costs, *times))
    return rows


def _p_values(accuracies: Mapping[str, list[float]], first: str) -> dict[str, float]:
    """Return the p-value of each row's difference from row `first`, by Dunnett's test.

    It compares several means with one control. The deviation is that of all rows together, and the p-values account
    for the number of comparisons. Empty if no row has two runs.
    """
    from scipy.stats import dunnett  # a dependency of scikit-learn

    others = {name: found for name, found in accuracies.items() if found and name != first}
    control = accuracies.get(first, [])
    if not control or sum(map(len, others.values())) + len(control) <= len(others) + 1:
        return {}
    found = dunnett(*others.values(), control=control, random_state=np.random.default_rng(0))
    return dict(zip(others, map(float, found.pvalue), strict=True))


def _latencies(recipes: Rows, framework: str) -> dict[str, float]:
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


def _draw(accuracies: Mapping[str, list[float]], first: str, path: Path, title: str) -> None:
    """Draw the runs of each row as points, and the range of the runs of row `first` as a band."""
    from matplotlib.figure import Figure

    names = sorted(
        (name for name in accuracies if accuracies[name]), key=lambda name: statistics.mean(accuracies[name])
    )
    figure = Figure(layout="constrained", figsize=(7, 1 + 0.3 * len(names)))
    axis = figure.subplots()
    if plain := accuracies.get(first):
        axis.axvspan(min(plain), max(plain), color="tab:orange", alpha=0.25, label=f"range of {first}")
        axis.legend(loc="lower right")
    for place, name in enumerate(names):
        axis.plot(accuracies[name], [place] * len(accuracies[name]), "o", color="tab:blue", alpha=0.5)
        axis.plot(statistics.mean(accuracies[name]), place, "|", color="black", markersize=14)
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="test accuracy, % (points: seeds; line: mean)", title=title)
    axis.grid(axis="x", alpha=0.3)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
