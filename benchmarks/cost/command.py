"""`maam bench`."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from maam import _io
from maam.cli import terminal
from maam.cli.options import refuse_given, split
from maam.errors import MaamError, require

if TYPE_CHECKING:
    from benchmarks.cost import Result

Said = tuple[list[str], dict[str, Any]]
"""Paragraphs for people, and a document for programs."""

GROUPS = ("layers", "models", "growth")
_OF_COMPARISONS = ("cases", "kinds", "batch", "channels", "size", "memory", "accuracies")
KINDS_HELP = "comma-separated starts, without their own commas, such as inference fused; all otherwise"


def bench(
    context: typer.Context,
    group: Annotated[str, typer.Argument(help=", ".join(GROUPS), autocompletion=terminal.groups)],
    frameworks: Annotated[
        str, typer.Option(help="comma-separated", autocompletion=terminal.several_frameworks)
    ] = "torch,mindspore",
    cases: Annotated[str | None, typer.Option(help="comma-separated; all otherwise")] = None,
    kinds: Annotated[str | None, typer.Option(help=KINDS_HELP)] = None,
    batch: Annotated[str, typer.Option(help="comma-separated sizes of batches")] = "1,8,64",
    channels: Annotated[int, typer.Option(min=1, help="of the map, for layers")] = 64,
    size: Annotated[int, typer.Option(min=1, help="of the map, for layers")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="how often all are run in turns")] = 5,
    memory: Annotated[
        bool, typer.Option("--memory", help="peak memory too, each case in a process of its own")
    ] = False,
    accuracies: Annotated[Path | None, typer.Option(help="JSON of accuracies by case, for the picture")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for tables, figures (JSON) and pictures")] = None,
) -> None:
    """Compare layers, or models, or show how the layer's cost grows: CPU time in turns within one run, as ratios."""
    from benchmarks.cost import FRAMEWORKS, measure
    from maam._system import environment

    if group not in GROUPS:
        raise MaamError(f"expected one of {', '.join(GROUPS)}, got {group[:60]!r}")
    if group == "models":
        refuse_given(context, ("channels", "size"), "the models take images of 32x32; leave it out")
    if out is None:
        refuse_given(context, ("accuracies",), "it is for the picture, which needs --out")
    names = split("--frameworks", frameworks, FRAMEWORKS)
    sizes = [_batch(text) for text in batch.split(",")]
    known = {} if accuracies is None else _accuracies(accuracies)
    if out is not None:
        require("matplotlib", "train")  # before minutes of measuring
        out.mkdir(parents=True, exist_ok=True)
    if group == "growth":
        refuse_given(context, _OF_COMPARISONS, "growth is of the layer alone, over sizes of its own; leave it out")
        text, document = _growth(names, rounds, out)
    else:
        log = Console(stderr=True)
        measured = functools.partial(
            measure,
            group,
            cases=None if cases is None else split("--cases", cases),
            frameworks=names,
            kinds=None if kinds is None else split("--kinds", kinds),
            channels=channels,
            size=size,
            rounds=rounds,
            memory=memory,
            progress=lambda line: log.print(line, highlight=False, markup=False),
        )
        text, document = _comparison(group, [measured(batch=count) for count in sizes], known, out)
    text = [*filter(None, text), ", ".join(f"{key} {value}" for key, value in environment().items())]
    typer.echo("\n\n".join(text))
    if out is not None:
        _io.write_text(out / f"{group}.md", "\n\n".join(text) + "\n")
        _io.write_text(out / f"{group}.json", json.dumps({"environment": environment(), **document}, indent=1) + "\n")


def _growth(frameworks: list[str], rounds: int, out: Path | None) -> Said:
    from benchmarks.cost import measure_growth, report

    text, document = [], {}
    for name in frameworks:
        growth = measure_growth(name, rounds=rounds)
        text.append(f"{name}, inference, float32\n\n{report.growth_table(growth)}")
        document[name] = {axis: {"seconds": s, "slope": slope} for axis, (s, slope) in growth.items()}
        if out is not None:
            report.draw_growth(growth, out / f"growth_{name}.png")
    return text, document


def _comparison(group: str, results: list[Result], accuracies: dict[str, float], out: Path | None) -> Said:
    from benchmarks.cost import report

    text, document = [], {}
    for result in results:
        text += [report.times_table(result), report.limits_table(result), report.memory_table(result)]
        text += report.left_out(result)
        document[f"batch {result.batch}"] = result.to_document()
        if out is not None and any(kind == report.BASE_KIND for _, kind in result.times):
            report.draw_pareto(result, out / f"{group}_batch_{result.batch}.png", report.BASE_KIND, accuracies)
    return text, document


def _batch(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise MaamError(f"--batch: expected sizes from 1 on, comma-separated, got {text[:60]!r}")
    return int(text)


def _accuracies(path: Path) -> dict[str, float]:
    try:
        found = json.loads(path.read_text("utf-8"))
        return {str(name): float(value) for name, value in found.items()}
    except (ValueError, AttributeError, TypeError, UnicodeDecodeError):
        raise MaamError(f"--accuracies {path}: expected JSON such as {{'maam_cifar10': 0.9}}") from None
