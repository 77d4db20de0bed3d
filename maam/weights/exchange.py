"""What loading and saving have in common in all frameworks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from maam.errors import WeightsError
from maam.spec import Node
from maam.weights.file import read_weights
from maam.weights.matching import Mismatch, check_same_function, match

Array = np.ndarray[Any, Any]
PathLike = str | os.PathLike[str]


def spec_of(model: object) -> Node:
    """The spec that a model or layer carries.

    Raises:
        WeightsError: it was not built by maam.
    """
    spec = getattr(model, "spec", None)
    if not isinstance(spec, Node):
        raise WeightsError(f"{type(model).__name__} has no .spec; give a model or layer that maam built or loaded")
    return spec


def load_into(
    model: object, path: PathLike, strict: bool, write: Callable[[Any, Mapping[str, Array]], None]
) -> Mismatch:
    """Read `path`, hold it against `model.spec`, and `write(model, arrays)` what fits.

    Raises:
        WeightsError: as `read_weights`, `match` and, with `strict`, `check_same_function` do.
    """
    spec = spec_of(model)
    saved, arrays = read_weights(path)
    matched, mismatch = match(spec, arrays, source=str(path), strict=strict)
    if strict:
        check_same_function(spec, saved, source=str(path))
    write(model, matched)
    return mismatch


def read_whole(path: PathLike) -> tuple[Node, dict[str, Array]]:
    """The spec of a file and all arrays that it needs.

    Raises:
        WeightsError: the file is broken, or its arrays do not fit its spec.
    """
    spec, arrays = read_weights(path)
    return spec, match(spec, arrays, source=str(path))[0]
