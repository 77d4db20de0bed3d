"""What commands take for a model: a preset's name, a spec document or a weights file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from maam.errors import SpecError
from maam.spec import Model, Node, input_rule, list_presets, parse_json, preset
from maam.weights.exchange import read_whole

Array = np.ndarray[Any, Any]


def find_spec(name: str) -> tuple[Node, dict[str, Array] | None]:
    """The spec that `name` stands for, and its weights where `name` is a weights file.

    Raises:
        PresetError: there is neither a preset nor a file of that name.
        SpecError, WeightsError: the file is broken.
    """
    path = Path(name)
    if not name or name in list_presets() or not (path.suffix or _exists(path)):
        return preset(name), None
    if path.suffix == ".json":
        return _read_document(path), None
    return read_whole(path)


def input_shape(spec: Node, size: int) -> tuple[int, ...]:
    """The input shape (C, H, W) that a model names; for a layer `size` stands for height and width.

    It is (features,) for a layer that takes vectors alone.
    """
    if isinstance(spec, Model):
        return spec.input_shape
    channels = input_rule(spec).channels or 3
    return (channels,) if input_rule(spec).rank == 2 else (channels, size, size)


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
