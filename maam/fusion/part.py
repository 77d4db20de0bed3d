"""A node with its arrays, which the steps of fusion take and return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from maam.spec import Node

Array = np.ndarray[Any, Any]


class Part(NamedTuple):
    """A node and its float64 arrays by local name."""

    node: Node
    arrays: dict[str, Array]

    @property
    def parts(self) -> dict[str, Part]:
        """The child nodes with their arrays."""
        return {name: Part(child, _below(self.arrays, name)) for name, child in self.node.nodes.items()}

    def replace(self, **fields: Any) -> Part:
        """Return the part with other values in some fields of the node."""
        return self._replace(node=self.node.replace(**fields))

    def with_parts(self, parts: Mapping[str, Part]) -> Part:
        """Return the part with other children and their arrays."""
        arrays = {p.name: self.arrays[p.name] for p in self.node.own_parameters()}
        for name, part in parts.items():
            arrays |= {f"{name}.{local}": array for local, array in part.arrays.items()}
        return Part(self.node.with_nodes({name: part.node for name, part in parts.items()}), arrays)


def _below(arrays: Mapping[str, Array], name: str) -> dict[str, Array]:
    start = f"{name}."
    return {local.removeprefix(start): array for local, array in arrays.items() if local.startswith(start)}
