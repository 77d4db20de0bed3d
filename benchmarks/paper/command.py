"""`maam reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maam.cli import terminal
from maam.cli.options import Device, Framework, Override, Precision, changes, refuse_given, split
from maam.errors import MaamError

if TYPE_CHECKING:
    from benchmarks.paper import Experiment
    from maam.training.recipe import Recipe


FRAMEWORKS = "frameworks"
DEFAULT = "cifar10"


def reproduce(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            help="table1, table2 or figure2 of the MAAM paper; or frameworks: its MAAM in both",
            autocompletion=terminal.experiments,
        ),
    ],
    root: Annotated[Path | None, typer.Option(help="folder of CIFAR-10")] = None,
    framework: Framework = "torch",
    seeds: Annotated[str, typer.Option(help="comma-separated; frameworks takes the first")] = "0,1,2",
    epochs: Annotated[int | None, typer.Option(help="the recipe's otherwise")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="a recipe's name or a .toml file, the same for every row; cifar10 otherwise",
            autocompletion=terminal.recipes,
        ),
    ] = None,
    override: Override = None,
    precision: Precision = None,
    device: Device = None,
    only: Annotated[
        str | None,
        typer.Option(help="comma-separated presets: train these rows alone", autocompletion=terminal.several_presets),
    ] = None,
    runs: Annotated[Path, typer.Option(help="where the runs lie; tables share theirs")] = Path("runs/reproduce"),
    out: Annotated[Path | None, typer.Option(help="where the table goes; the folder of the runs otherwise")] = None,
    collect: Annotated[bool, typer.Option("--collect", help="train nothing: make the table of what was run")] = False,
) -> None:
    """Train what a table or figure of the MAAM paper compares, and set it beside the paper's numbers."""
    from benchmarks import paper
    from maam.backend import registry
    from maam.training.recipe_files import read_recipe

    both = name == FRAMEWORKS
    refuse_given(context, ("framework",) if both else (), "frameworks are both; leave it out")
    refuse_given(context, ("only", "device", "root") if collect else (), "--collect trains nothing; leave it out")
    experiment, chosen = _experiment(name), _seeds(seeds)[: 1 if both else None]
    registry.check_framework(framework)
    frameworks = registry.FRAMEWORKS if both else (framework,)
    changed = _changes(override, {"epochs": epochs, "precision": precision})
    _check_folder("--runs" if out is None else "--out", out or runs)
    found = read_recipe(recipe or DEFAULT).replaced(changed)
    if not collect:
        narrowed = experiment if only is None else _narrowed(experiment, split("--only", only))
        for each in frameworks:
            _train(narrowed, found, runs, root, seeds=chosen, framework=each, device=device)
    elif not runs.is_dir():
        raise MaamError(f"--runs {runs}: there is no such folder; give the one that holds the runs")
    elif recipe is not None or changed:
        for each in frameworks:
            paper.check_recipe(experiment, found, runs, chosen, each)
    if both:
        row = experiment.rows[0]
        typer.echo(paper.render_frameworks(row, paper.read_sides(row, runs, chosen[0]), out or runs))
    else:
        results = paper.collect(experiment, runs, chosen, framework)
        typer.echo(paper.render(name, experiment, results, out or runs))


def _check_folder(option: str, path: Path) -> None:
    """Refuse before the training a file where tables are to go."""
    if path.exists() and not path.is_dir():
        raise MaamError(f"{option} {path}: expected a folder, this is a file")


def _changes(override: list[str] | None, given: dict[str, Any]) -> dict[str, Any]:
    """What options change in the recipe; rows and seeds are not the recipe's here."""
    changed = changes(given, override)
    for field, instead in (("model", "the rows name the models, see --only"), ("seed", "see --seeds")):
        if field in changed:
            raise MaamError(f"-o {field}={changed[field]}: {instead}")
    return changed


def _experiment(name: str) -> Experiment:
    """The experiment of that name; for both frameworks the first row of table 1."""
    from benchmarks.paper import EXPERIMENTS

    if name not in (known := (*EXPERIMENTS, FRAMEWORKS)):
        raise MaamError(f"expected one of {', '.join(known)}, got {name!r}")
    if name == FRAMEWORKS:
        return EXPERIMENTS["table1"]._replace(rows=EXPERIMENTS["table1"].rows[:1])
    return EXPERIMENTS[name]


def _train(experiment: Experiment, recipe: Recipe, runs: Path, root: Path | None, **options: Any) -> None:
    from benchmarks import paper
    from maam.cli.train import Progress

    if root is None:
        raise MaamError("--root DIR is missing: the folder that `maam data cifar10 DIR` wrote")
    with Progress("the same command goes on from the last checkpoint") as progress:
        paper.run(experiment, recipe, runs, root=root, observer=progress.named, **options)


def _narrowed(experiment: Experiment, presets: list[str]) -> Experiment:
    known = [row.preset for row in experiment.rows]
    if unknown := sorted(set(presets) - set(known)):
        raise MaamError(f"--only: expected some of {', '.join(known)}, got {unknown[0]!r}")
    return experiment._replace(rows=tuple(row for row in experiment.rows if row.preset in presets))


def _seeds(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise MaamError(f"--seeds: expected comma-separated integers such as 0,1,2, got {text!r}")
    return list(dict.fromkeys(map(int, parts)))
