"""The command `python -m benchmarks paper`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.paper import pages, results
from benchmarks.paper.experiments import EXPERIMENTS, Experiment
from benchmarks.paper.frameworks import FRAMEWORKS, read_sides, render_frameworks
from maam.cli.options import Device, Override, Precision, changes, refuse_given, split
from maam.cli.train import Progress
from maam.errors import MaamError
from maam.training.recipe import Recipe
from maam.training.recipe_files import read_recipe

BOTH = "frameworks"
DEFAULT_RECIPE = "cifar10"
_NAME_HELP = "table1, table2 or figure2 of the MAAM paper; or frameworks: its MAAM in both frameworks"
_RECIPE_HELP = f"name of a recipe or a .toml file, the same for all rows; default: {DEFAULT_RECIPE}"


def paper(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help=_NAME_HELP)],
    root: Annotated[Path | None, typer.Option(help="folder of CIFAR-10")] = None,
    framework: Annotated[str, typer.Option(help="torch or mindspore")] = "torch",
    seeds: Annotated[str, typer.Option(help="comma-separated; frameworks uses the first one")] = "0,1,2",
    epochs: Annotated[int | None, typer.Option(help="number of epochs; default: from the recipe")] = None,
    recipe: Annotated[str | None, typer.Option(help=_RECIPE_HELP)] = None,
    override: Override = None,
    precision: Precision = None,
    device: Device = None,
    only: Annotated[str | None, typer.Option(help="comma-separated presets: train these rows only")] = None,
    runs: Annotated[Path, typer.Option(help="folder of the runs; tables share them")] = Path("runs/reproduce"),
    out: Annotated[Path | None, typer.Option(help="folder of the page; default: the folder of the runs")] = None,
    collect: Annotated[bool, typer.Option("--collect", help="make the page from finished runs, without training")] = (
        False
    ),
) -> None:
    """Train the models of a table or figure of the MAAM paper and compare the results with the paper."""
    both = name == BOTH
    refuse_given(context, ("framework",) if both else (), "frameworks trains in both; remove this option")
    refuse_given(context, ("only", "device", "root") if collect else (), "--collect does not train; remove this option")
    experiment, selected = _find_experiment(name), _parse_seeds(seeds)[: 1 if both else None]
    if framework not in FRAMEWORKS:
        raise MaamError(f"--framework: expected one of {', '.join(FRAMEWORKS)}, got {framework[:60]!r}")
    frameworks = FRAMEWORKS if both else (framework,)
    changed = _recipe_changes(override, {"epochs": epochs, "precision": precision})
    target = out or runs
    if target.exists() and not target.is_dir():
        raise MaamError(f"{'--runs' if out is None else '--out'} {target}: expected a folder, this is a file")
    found = read_recipe(recipe or DEFAULT_RECIPE).replaced(changed)
    if not collect:
        selection = experiment if only is None else _select_rows(experiment, split("--only", only))
        for each in frameworks:
            _train(selection, found, runs, root, seeds=selected, framework=each, device=device)
    elif not runs.is_dir():
        raise MaamError(f"--runs {runs}: no such folder; give the folder that contains the runs")
    elif recipe is not None or changed:
        for each in frameworks:
            results.check_recipe(experiment, found, runs, selected, each)
    if both:
        row = experiment.rows[0]
        typer.echo(render_frameworks(row, read_sides(row, runs, selected[0]), target))
    else:
        typer.echo(pages.render(name, experiment, results.collect(experiment, runs, selected, framework), target))


def _recipe_changes(override: list[str] | None, given: dict[str, Any]) -> dict[str, Any]:
    changed = changes(given, override)
    for field, instead in (("model", "the rows define the models; use --only"), ("seed", "use --seeds")):
        if field in changed:
            raise MaamError(f"-o {field}={changed[field]}: {instead}")
    return changed


def _find_experiment(name: str) -> Experiment:
    """Return the experiment `name`; for both frameworks the first row of table 1."""
    if name not in (known := (*EXPERIMENTS, BOTH)):
        raise MaamError(f"expected one of {', '.join(known)}, got {name!r}")
    if name == BOTH:
        return EXPERIMENTS["table1"]._replace(rows=EXPERIMENTS["table1"].rows[:1])
    return EXPERIMENTS[name]


def _train(experiment: Experiment, recipe: Recipe, runs: Path, root: Path | None, **options: Any) -> None:
    if root is None:
        raise MaamError("--root: expected the folder that `maam data cifar10 DIR` wrote, got none; add --root DIR")
    seeds, framework = options["seeds"], options["framework"]
    missing = results.missing_runs(experiment, runs, seeds, framework)
    if missing:
        total = len(experiment.rows) * len(seeds)
        typer.echo(f"{framework}: {len(missing)} of {total} runs to train, {recipe.epochs} epochs each", err=True)
    with Progress("run the same command again to resume from the last checkpoint") as progress:
        results.run(experiment, recipe, runs, root=root, observer=progress.named, **options)


def _select_rows(experiment: Experiment, presets: list[str]) -> Experiment:
    known = [row.preset for row in experiment.rows]
    if unknown := sorted(set(presets) - set(known)):
        raise MaamError(f"--only: expected some of {', '.join(known)}, got {unknown[0]!r}")
    return experiment._replace(rows=tuple(row for row in experiment.rows if row.preset in presets))


def _parse_seeds(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise MaamError(f"--seeds: expected comma-separated integers such as 0,1,2, got {text!r}")
    return list(dict.fromkeys(map(int, parts)))
