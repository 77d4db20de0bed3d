"""Options that several commands share, and checks of their values."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from maam import _io
from maam.cli import completion
from maam.errors import DeploymentError, MaamError, RecipeError, SpecError, require

Model = Annotated[
    str,
    typer.Argument(
        help="a preset, a weights file, a spec document (.json) or the folder of a run",
        autocompletion=completion.presets,
    ),
]
Trained = Annotated[
    str, typer.Argument(help="a preset with pretrained weights, a weights file, or the folder of a run")
]
Size = Annotated[int | None, typer.Option(min=1, help="height and width; default: the model's size, or 32 for a layer")]
Root = Annotated[Path | None, typer.Option(help="folder of the data set")]
Framework = Annotated[str, typer.Option(help="torch or mindspore", autocompletion=completion.frameworks)]
Device = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda (PyTorch) or ascend (MindSpore); default: the best one", autocompletion=completion.devices
    ),
]
Override = Annotated[
    list[str] | None,
    typer.Option(
        "--override",
        "-o",
        metavar="FIELD=VALUE",
        help="change a field of the recipe, such as optimizer.lr=0.05; repeat for more",
    ),
]
ImageRecipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="recipe (name or .toml file) that determines how image files are cropped and normalized; "
        "default: from the run or the preset",
        autocompletion=completion.recipes,
    ),
]
ImageOverride = Annotated[
    list[str] | None,
    typer.Option(
        "--override",
        "-o",
        metavar="FIELD=VALUE",
        help="change a field of images, such as images.size=160; repeat for more",
    ),
]
NumWorkers = Annotated[
    int,
    typer.Option(
        "--num-workers", "-j", min=0, help="processes (PyTorch) or threads (MindSpore) that decode image files"
    ),
]
OnBroken = Annotated[str, typer.Option(help="what to do with broken image files: error or skip")]
Precision = Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16", autocompletion=completion.precisions)]
Classes = Annotated[
    str | None, typer.Option(help="class names: comma-separated, or a text file with one name on each line")
]
Mean = Annotated[str | None, typer.Option(help="comma-separated means of the channels, for pixels in [0, 1]")]
Std = Annotated[
    str | None, typer.Option(help="comma-separated standard deviations of the channels, for pixels in [0, 1]")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace an existing file")]
Json = Annotated[Path | None, typer.Option(help="write the report to this file; replaced if it exists")]
Html = Annotated[Path | None, typer.Option(help="write the report as a web page to this file; replaced if it exists")]


def parse_overrides(texts: list[str] | None) -> dict[str, Any]:
    """Return the changes of a recipe in the texts of `-o`.

    Raises:
        RecipeError: a text has no "=".
    """
    from maam.training.recipe_files import parse_override

    return dict(parse_override(text) for text in texts or [])


def changes(given: dict[str, Any], texts: list[str] | None) -> dict[str, Any]:
    """Return the changes of a recipe by separate options and by `-o` together.

    Args:
        given: the values of separate options by field; None for options that were not given.
        texts: the texts of `-o`.

    Raises:
        RecipeError: a text has no "=", or contradicts an option.
    """
    own = {field: value for field, value in given.items() if value is not None}
    overrides = parse_overrides(texts)
    said = dict(overrides)
    for table, value in overrides.items():
        if isinstance(value, dict):
            said |= {f"{table}.{field}": one for field, one in value.items()}
    for field, value in own.items():
        if field in said and said[field] != value and str(said[field]) != str(value):
            option = field.rpartition(".")[2].replace("_", "-")
            raise RecipeError(f"-o {field}={said[field]} contradicts --{option} {value}; give one of them")
    return overrides | own


def image_options(name: str | None, texts: list[str] | None) -> dict[str, Any]:
    """Return the values of `ImageRecipe` and `ImageOverride` as arguments of `evaluate_file` and `predict_files`.

    Raises:
        RecipeError: there is no such recipe, or an override has no "=".
    """
    from maam.training.recipe_files import read_recipe

    return {"recipe": None if name is None else read_recipe(name), "changes": parse_overrides(texts)}


def refuse_given(context: typer.Context, names: Iterable[str], why: str) -> None:
    """Raise `MaamError` if one of the options was given on the command line; `why` completes the message."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise MaamError(f"--{name.replace('_', '-')}: {why}")


def check_written(option: str, path: Path | None) -> None:
    """Raise `MaamError` if the file at `path` cannot be written; commands call it before long work."""
    if path is None or (_io.is_special(path) and os.access(path, os.W_OK)):
        return
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise MaamError(f"{option} {path}: expected a file in a folder that exists and is writable")


def check_picture(option: str, path: Path | None) -> None:
    """Check before long work that a picture can be drawn: matplotlib is installed, and the suffix is known.

    Raises:
        MaamError: the suffix of the file is unknown.
        MissingFrameworkError: matplotlib is not installed.
    """
    if path is not None:
        _io.check_picture(path, option)
        require("matplotlib", "train")


def check_outputs(outputs: Mapping[str, Path | None], inputs: Iterable[str | Path] = ()) -> None:
    """Check before long work that the file of each option can be written, and that it has no other use.

    Args:
        outputs: the files to write, by option. A device, such as /dev/null, may occur several times.
        inputs: what the command reads; names that are no files, such as those of presets, do not count.

    Raises:
        MaamError: a file cannot be written, two options name the same file, or the command also reads it.
    """
    read = {os.path.realpath(path) for path in inputs if os.path.isfile(path)}
    taken: dict[str, str] = {}
    for option, path in outputs.items():
        check_written(option, path)
        if path is None or _io.is_special(path):
            continue
        place = os.path.realpath(path)
        if place in read:
            raise MaamError(f"{option} {path}: the command reads this file; give the result another name")
        if place in taken:
            raise MaamError(f"{option} {path}: {taken[place]} writes this file too; give each result its own name")
        taken[place] = option


def split(option: str, text: str, known: Iterable[str] | None = None) -> list[str]:
    """Return the parts of a comma-separated list without duplicates.

    Raises:
        SpecError: the list is empty, or a part is not among the `known` names.
    """
    parts = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not parts:
        raise SpecError(f"{option}: expected at least one name")
    if known is not None and (unknown := [part for part in parts if part not in known]):
        raise SpecError(f"{option}: expected some of {', '.join(known)}, got {unknown[0][:60]!r}")
    return parts


def class_names(text: str | None) -> list[str] | None:
    """Return the names in the value of `--classes`, which is a list or a text file; None for None.

    Raises:
        DeploymentError: the file does not exist or is not text.
    """
    if text is None:
        return None
    path = Path(text)
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise DeploymentError(f"--classes {path}: cannot be read: it is not UTF-8 text") from None
    except OSError as error:  # also if a list of names is longer than a file name can be
        if "," not in text and (path.suffix or len(path.parts) > 1):
            reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
            raise DeploymentError(
                f"--classes {text}: {reason}; give a text file with one name on each line, or comma-separated names"
            ) from None
        return [name.strip() for name in text.split(",")]


def numbers(option: str, text: str | None) -> list[float] | None:
    """Return the numbers in a comma-separated list; None for None.

    Raises:
        DeploymentError: a part is not a number.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise DeploymentError(f"{option}: expected comma-separated numbers, got {text[:60]!r}") from None
