"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from maam.cli import completion
from maam.errors import SpecError

Root = Annotated[Path | None, typer.Option(help="folder of the data set")]
Framework = Annotated[str, typer.Option(help="torch or mindspore", autocompletion=completion.frameworks)]
Device = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda (PyTorch) or ascend (MindSpore); the best otherwise", autocompletion=completion.devices
    ),
]
Override = Annotated[
    list[str] | None, typer.Option("--override", "-o", metavar="FIELD=VALUE", help="such as optimizer.lr=0.05")
]
ImageRecipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="how image files are cut, a recipe's name or a .toml file; the run's or the preset's otherwise",
        autocompletion=completion.recipes,
    ),
]
ImageOverride = Annotated[
    list[str] | None, typer.Option("--override", "-o", metavar="FIELD=VALUE", help="such as images.size=160")
]
NumWorkers = Annotated[
    int, typer.Option("--num-workers", "-j", min=0, help="processes (PyTorch) or threads that decode image files")
]
OnBroken = Annotated[str, typer.Option(help="broken image files: error or skip")]
Precision = Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16", autocompletion=completion.precisions)]


def parse_overrides(texts: list[str] | None) -> dict[str, Any]:
    """The changes of a recipe that `-o` asks for.

    Raises:
        RecipeError: one has no "=".
    """
    from maam.training.library import parse_override

    return dict(parse_override(text) for text in texts or [])


def image_options(name: str | None, texts: list[str] | None) -> dict[str, Any]:
    """What `ImageRecipe` and `ImageOverride` ask for, as arguments of `evaluate_file` and `predict_files`.

    Raises:
        RecipeError: there is no such recipe, or an override has no "=".
    """
    from maam.training.library import read_recipe

    return {"recipe": None if name is None else read_recipe(name), "changes": parse_overrides(texts)}


def split(option: str, text: str, known: Iterable[str] | None = None) -> list[str]:
    """The parts of a comma-separated list, each once.

    Raises:
        SpecError: there is none, or one is not among the `known`.
    """
    parts = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not parts:
        raise SpecError(f"{option}: expected at least one name")
    if known is not None and (unknown := [part for part in parts if part not in known]):
        raise SpecError(f"{option}: expected some of {', '.join(known)}, got {unknown[0][:60]!r}")
    return parts
