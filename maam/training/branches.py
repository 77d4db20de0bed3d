"""How a model weighs its branches, for the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maam.spec import Node, Parallel

Array = np.ndarray[Any, Any]


def fusion_scalars(spec: Node) -> list[str]:
    """The canonical names of all scalars whose softmax weighs branches (equation 2 of the MAAM paper)."""
    merges = [path for path, node in spec.walk() if isinstance(node, Parallel) and node.merge == "softmax"]
    return [f"{path}.alpha" if path else "alpha" for path in merges]


def fusion_weights(names: Sequence[str], arrays: Mapping[str, Array]) -> dict[str, list[float]]:
    """The weight of each branch, by the name of the scalars (branches,) in `arrays` that it follows from."""
    return {name: _softmax(arrays[name]).tolist() for name in names}


def _softmax(values: Array) -> Array:
    powers = np.exp(values.astype(np.float64) - values.max())
    return powers / powers.sum()
