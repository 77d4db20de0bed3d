"""The command `python -m benchmarks cost`."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.cost import FRAMEWORKS, Result, measure, measure_growth, report
from maam import _io
from maam._system import environment
from maam.cli.options import refuse_given, split
from maam.errors import MaamError, require

Output = tuple[list[str], dict[str, Any]]
"""Paragraphs of Markdown, and the same measurements as JSON data."""
GROUPS = ("layers", "models", "growth")
_COMPARISON_OPTIONS = ("cases", "kinds", "batch", "channels", "size", "memory", "accuracies")
_KINDS_HELP = (
    "comma-separated prefixes of kinds, such as 'inference fused'; leave out commas inside a name; default: all"
)


def cost(
    context: typer.Context,
    group: Annotated[str, typer.Argument(help=", ".join(GROUPS))],
    frameworks: Annotated[str, typer.Option(help="comma-separated")] = "torch,mindspore",
    cases: Annotated[str | None, typer.Option(help="comma-separated; default: all")] = None,
    kinds: Annotated[str | None, typer.Option(help=_KINDS_HELP)] = None,
    batch: Annotated[str, typer.Option(help="comma-separated batch sizes")] = "1,8,64",
    channels: Annotated[int, typer.Option(min=1, help="channels of the map (layers)")] = 64,
    size: Annotated[int, typer.Option(min=1, help="height and width of the map (layers)")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="number of rounds; each round runs every case once")] = 5,
    memory: Annotated[
        bool, typer.Option("--memory", help="also measure peak memory, each case in its own process")
    ] = False,
    accuracies: Annotated[
        Path | None, typer.Option(help="JSON file with the accuracy of each case, for the picture")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder for tables, JSON and pictures")] = None,
) -> None:
    """Compare the CPU time of layers or models, or show how the cost of a MAAM layer grows.

    All functions are interleaved in one process. Set OMP_NUM_THREADS=1 to measure one thread.
    """
    if group not in GROUPS:
        raise MaamError(f"expected one of {', '.join(GROUPS)}, got {group[:60]!r}")
    if group == "models":
        refuse_given(context, ("channels", "size"), "the models take images of 32x32; remove this option")
    if out is None:
        refuse_given(context, ("accuracies",), "only the picture uses it; add --out")
    names = split("--frameworks", frameworks, FRAMEWORKS)
    sizes = [_parse_size(text) for text in batch.split(",")]
    known = {} if accuracies is None else _read_accuracies(accuracies)
    if out is not None:
        require("matplotlib", "train")  # before minutes of measurements
        out.mkdir(parents=True, exist_ok=True)
    log = Console(stderr=True)
    progress = functools.partial(log.print, highlight=False, markup=False)
    if group == "growth":
        refuse_given(context, _COMPARISON_OPTIONS, "growth measures fixed settings of one layer; remove this option")
        text, document = _measure_growth(names, rounds, out, progress)
    else:
        measure_batch = functools.partial(
            measure,
            group,
            cases=None if cases is None else split("--cases", cases),
            frameworks=names,
            kinds=None if kinds is None else split("--kinds", kinds),
            channels=channels,
            size=size,
            rounds=rounds,
            memory=memory,
            progress=progress,
        )
        text, document = _describe(group, [measure_batch(batch=count) for count in sizes], known, out)
    text = [*filter(None, text), ", ".join(f"{key} {value}" for key, value in environment().items())]
    typer.echo("\n\n".join(text))
    if out is not None:
        _io.write_text(out / f"{group}.md", "\n\n".join(text) + "\n")
        _io.write_text(out / f"{group}.json", json.dumps({"environment": environment(), **document}, indent=1) + "\n")


def _measure_growth(frameworks: list[str], rounds: int, out: Path | None, progress: Callable[[str], None]) -> Output:
    text, document = [], {}
    for name in frameworks:
        growth = measure_growth(name, rounds=rounds, progress=progress)
        text.append(f"{name}, inference, float32\n\n{report.growth_table(growth)}")
        document[name] = {axis: {"seconds": s, "slope": slope} for axis, (s, slope) in growth.items()}
        if out is not None:
            report.draw_growth(growth, out / f"growth_{name}.png")
    return text, document


def _describe(group: str, results: list[Result], accuracies: dict[str, float], out: Path | None) -> Output:
    text, document = [], {}
    for result in results:
        text += [report.times_table(result), report.limits_table(result), report.memory_table(result)]
        text += report.left_out(result)
        document[f"batch {result.batch}"] = result.to_document()
        if out is not None and any(kind == report.BASE_KIND for _, kind in result.times):
            report.draw_pareto(result, out / f"{group}_batch_{result.batch}.png", report.BASE_KIND, accuracies)
    return text, document


def _parse_size(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise MaamError(f"--batch: expected comma-separated integers of at least 1, got {text[:60]!r}")
    return int(text)


def _read_accuracies(path: Path) -> dict[str, float]:
    try:
        found = json.loads(path.read_text("utf-8"))
        return {str(name): float(value) for name, value in found.items()}
    except (ValueError, AttributeError, TypeError, UnicodeDecodeError):
        raise MaamError(f"--accuracies {path}: expected JSON such as {{'maam_cifar10': 0.9}}") from None
