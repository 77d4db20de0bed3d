"""What a port holds to each other, and the names of its arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maam.porting.alignment import Run
from maam.porting.half import Call, Half
from maam.porting.pairing import Pair

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Subject:
    """The matter of a port, after the transfer.

    Attributes:
        torch: the PyTorch module.
        mindspore: the MindSpore cell.
        double: the PyTorch module in float64, the referee; the module itself where it has no float64 form.
        pairs: the layers with weights.
        runs: the runs of layers that stand for each other.
        x: the inputs.
        seed: of all that is drawn.
        steps: training steps to compare.
        refusal: what MindSpore said where its model could not run; empty otherwise.
    """

    torch: Half
    mindspore: Half
    double: Half
    pairs: Sequence[Pair]
    runs: Sequence[Run]
    x: Array
    seed: int
    steps: int
    refusal: str = ""

    def torch_names(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """MindSpore's arrays by PyTorch's names, and in PyTorch's shapes."""
        return {own.name: arrays[other.name].reshape(own.shape) for own, other in self._slots(arrays)}

    def layer(self, name: str) -> str:
        """How to call a PyTorch array in a report: with MindSpore's name where that is another."""
        for pair in self.pairs:
            for own, other in pair.slots:
                if own.name == name:
                    return name if other.name == name else f"{name} (MindSpore: {other.name})"
        return name

    def record(self, training: bool) -> tuple[list[Call], list[Call]]:
        """What every layer takes and gives in PyTorch, in float32 and in float64; running statistics stay."""
        found = []
        for half in (self.torch, self.double):
            before = half.read()
            found.append(half.record(self.x, training)[1])
            half.write(before)
        return found[0], found[1]

    def _slots(self, arrays: Mapping[str, Array]) -> list[tuple[Any, Any]]:
        return [(a, b) for pair in self.pairs for a, b in pair.slots if b.name in arrays]
