"""What commands take for a model: a preset's name, a spec document or a weights file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from maam.errors import SpecError
from maam.spec import Model, Node, list_presets, parse_json, preset
from maam.weights.exchange import read_whole

Array = np.ndarray[Any, Any]


def find_spec(name: str) -> tuple[Node, dict[str, Array] | None]:
    """The spec that `name` stands for, and its weights where `name` is a weights file.

    Raises:
        PresetError: there is neither a preset nor a file of that name.
        SpecError, WeightsError: the file is broken.
    """
    path = Path(name)
    if name in list_presets() or not (path.suffix or path.exists()):
        return preset(name), None
    if path.suffix == ".json":
        return parse_json(_read(path)), None
    return read_whole(path)


def input_shape(spec: Node, size: int) -> tuple[int, ...]:
    """The input shape (C, H, W) that a model names; for a layer `size` stands for height and width."""
    if isinstance(spec, Model):
        return spec.input_shape
    return (spec.in_channels_expected or 3, size, size)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from None
