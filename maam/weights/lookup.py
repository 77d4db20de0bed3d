"""What people name: a preset, a spec document or a weights file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from maam.errors import SpecError
from maam.spec import Node, list_presets, parse_json, preset
from maam.spec.presets import aliases
from maam.weights.exchange import read_whole

Array = np.ndarray[Any, Any]
DOCUMENT = ".json"


def names_file(name: str) -> bool:
    """Whether `name` stands for a file: it is no preset, and has a suffix or is there."""
    path = Path(name)
    known = name in list_presets() or name in aliases()
    return bool(name) and not known and bool(path.suffix or _exists(path))


def find_spec(name: str) -> tuple[Node, dict[str, Array] | None]:
    """The spec that `name` stands for, and its weights where `name` is a weights file.

    Raises:
        PresetError: there is neither a preset nor a file of that name.
        SpecError, WeightsError: the file is broken.
    """
    if not names_file(name):
        return preset(name), None
    if Path(name).suffix == DOCUMENT:
        return _read_document(Path(name)), None
    return read_whole(name)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # the name is longer than names of files can be
        return False


def _read_document(path: Path) -> Node:
    try:
        return parse_json(path.read_text("utf-8-sig"))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}: cannot be read: it is no UTF-8 text") from None
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None
