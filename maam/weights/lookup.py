"""Names on the command line: a preset, a spec document or a weights file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from maam._io import read_text
from maam.errors import SpecError, WeightsError
from maam.spec import Node, list_presets, parse_json, preset
from maam.spec.node import MAX_LENGTH
from maam.spec.presets import aliases
from maam.weights.exchange import read_whole

Array = np.ndarray[Any, Any]
DOCUMENT = ".json"
FINAL = "final.safetensors"
"""The weights of a finished run, in its folder."""


def names_file(name: str) -> bool:
    """Return whether a name refers to a file: it is not a preset, and it has a suffix or exists."""
    path = Path(name)
    known = name in list_presets() or name in aliases()
    return bool(name) and not known and bool(path.suffix or _exists(path))


def find_spec(name: str) -> tuple[Node, dict[str, Array] | None]:
    """Return the spec of a preset, spec document (.json) or weights file, and the weights of a weights file.

    For the folder of a run, these are its final weights.

    Raises:
        PresetError: there is no preset and no file with that name.
        SpecError: the spec document is broken.
        WeightsError: the weights file is broken, or a folder contains none.
    """
    if not names_file(name):
        return preset(name), None
    if Path(name).is_dir():
        return read_whole(_weights_in(Path(name)))
    if Path(name).suffix == DOCUMENT:
        return _read_document(Path(name)), None
    return read_whole(name)


def _weights_in(folder: Path) -> Path:
    """Return the weights file in a folder: the final weights of a run, or the only file.

    Raises:
        WeightsError: there is no such file.
    """
    held = sorted(file for file in folder.glob("*.safetensors") if file.is_file() and not file.name.startswith("."))
    final = folder / FINAL
    if final in held or len(held) == 1:
        return final if final in held else held[0]
    found = f"it contains {', '.join(file.name for file in held[:4])}" if held else "it contains no weights"
    raise WeightsError(f"{folder}: this is a folder, and {found}; give a weights file or the folder of a finished run")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # the name is too long for a file
        return False


def _read_document(path: Path) -> Node:
    try:
        return parse_json(read_text(path, MAX_LENGTH))
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}: cannot be read: it is not UTF-8 text") from None
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None
