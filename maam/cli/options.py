"""Options that several commands have."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from maam import _io
from maam.cli import terminal
from maam.errors import MaamError, RecipeError, SpecError

Root = Annotated[Path | None, typer.Option(help="folder of the data set")]
Framework = Annotated[str, typer.Option(help="torch or mindspore", autocompletion=terminal.frameworks)]
Device = Annotated[
    str | None,
    typer.Option(help="cpu, cuda (PyTorch) or ascend (MindSpore); the best otherwise", autocompletion=terminal.devices),
]
Override = Annotated[
    list[str] | None, typer.Option("--override", "-o", metavar="FIELD=VALUE", help="such as optimizer.lr=0.05")
]
ImageRecipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="how image files are cut, a recipe's name or a .toml file; the run's or the preset's otherwise",
        autocompletion=terminal.recipes,
    ),
]
ImageOverride = Annotated[
    list[str] | None, typer.Option("--override", "-o", metavar="FIELD=VALUE", help="such as images.size=160")
]
NumWorkers = Annotated[
    int, typer.Option("--num-workers", "-j", min=0, help="processes (PyTorch) or threads that decode image files")
]
OnBroken = Annotated[str, typer.Option(help="broken image files: error or skip")]
Precision = Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16", autocompletion=terminal.precisions)]


def parse_overrides(texts: list[str] | None) -> dict[str, Any]:
    """The changes of a recipe that `-o` asks for.

    Raises:
        RecipeError: one has no "=".
    """
    from maam.training.recipe_files import parse_override

    return dict(parse_override(text) for text in texts or [])


def changes(given: dict[str, Any], texts: list[str] | None) -> dict[str, Any]:
    """The changes of a recipe that options of their own and `-o` ask for together; an option of None asks for nothing.

    Raises:
        RecipeError: an override has no "=", or says another value than the option for the same field.
    """
    own = {field: value for field, value in given.items() if value is not None}
    overrides = parse_overrides(texts)
    said = _flat(overrides)
    for field, value in own.items():
        if field in said and said[field] != value and str(said[field]) != str(value):
            option = field.rpartition(".")[2].replace("_", "-")
            raise RecipeError(f"-o {field}={said[field]} contradicts --{option} {value}; give one of them")
    return overrides | own


def _flat(overrides: dict[str, Any]) -> dict[str, Any]:
    """The same with the fields of tables as paths."""
    flat = dict(overrides)
    for section, value in overrides.items():
        if isinstance(value, dict):
            flat |= {f"{section}.{field}": one for field, one in value.items()}
    return flat


def image_options(name: str | None, texts: list[str] | None) -> dict[str, Any]:
    """What `ImageRecipe` and `ImageOverride` ask for, as arguments of `evaluate_file` and `predict_files`.

    Raises:
        RecipeError: there is no such recipe, or an override has no "=".
    """
    from maam.training.recipe_files import read_recipe

    return {"recipe": None if name is None else read_recipe(name), "changes": parse_overrides(texts)}


def refuse_given(context: typer.Context, names: Iterable[str], why: str) -> None:
    """Refuse options that were given and would do nothing; `why` ends the sentence.

    Raises:
        MaamError: naming the first.
    """
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise MaamError(f"--{name.replace('_', '-')}: {why}")


def check_written(option: str, path: Path | None) -> None:
    """Refuse before the work what could not be written after it.

    Raises:
        MaamError: there is no such folder, it may not be written, or `path` is a folder.
    """
    if path is None or (_io.is_special(path) and os.access(path, os.W_OK)):
        return
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise MaamError(f"{option} {path}: expected a file in a folder that exists and can be written")


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
