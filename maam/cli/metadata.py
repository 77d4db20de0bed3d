"""What commands are told about a model: class names, and how images are normalised."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maam.errors import DeploymentError

Classes = Annotated[str | None, typer.Option(help="class names: comma-separated, or a file of lines")]
Mean = Annotated[str | None, typer.Option(help="of the channels in [0, 1], comma-separated")]
Std = Annotated[str | None, typer.Option(help="of the channels in [0, 1], comma-separated")]


def class_names(text: str | None) -> list[str] | None:
    """The names that `--classes` gives, None where it is not given.

    Raises:
        DeploymentError: it names a file that there is not, or that is no text.
    """
    if text is None:
        return None
    path = Path(text)
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise DeploymentError(f"--classes {path}: cannot be read: it is no UTF-8 text") from None
    except OSError as error:  # among others: a list of names is longer than names of files can be
        if "," not in text and (path.suffix or len(path.parts) > 1):
            reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
            raise DeploymentError(
                f"--classes {text}: {reason}; give a file of lines, or comma-separated names"
            ) from None
        return [name.strip() for name in text.split(",")]


def numbers(option: str, text: str | None) -> list[float] | None:
    """The numbers that an option gives, None where it is not given.

    Raises:
        DeploymentError: one is no number.
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise DeploymentError(f"{option}: expected numbers, comma-separated, got {text[:60]!r}") from None
