"""The model that a function of deployment gets: a weights file, or a model of any backend."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from maam.backend.registry import find_owner, load_backend
from maam.errors import DeploymentError
from maam.spec import Node
from maam.weights.exchange import read_whole

Array = np.ndarray[Any, Any]


def read_source(src: object, dtype: np.dtype[Any] | None = None) -> tuple[Node, dict[str, Array]]:
    """Return the spec and the arrays of a weights file, or of a model that maam has built or loaded.

    Args:
        src: the path of a weights file, or a model.
        dtype: the dtype of the returned arrays; None keeps that of `src`.

    Raises:
        WeightsError: the file is missing or broken, or the model was not built by maam or has changed layers.
        DeploymentError: `src` is neither a path nor a model of a known framework.
    """
    if isinstance(src, (str, os.PathLike)):
        return read_whole(src, dtype)
    if (owner := find_owner(src)) is None:
        raise DeploymentError(
            f"expected the path of a weights file or a model of maam, got an object of type {type(src).__name__}"
        )
    with tempfile.TemporaryDirectory() as folder:  # save_weights checks that the layers are those of the spec
        path = Path(folder) / "model.safetensors"
        load_backend(owner).save_weights(src, path)
        return read_whole(path, dtype)
