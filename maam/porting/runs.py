"""The calls of layers that correspond in two recorded forward passes."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from maam.backend.adapter import OWN, Call, Layer
from maam.porting.matching import MergedLayer, Pair


class Run(NamedTuple):
    """A run of a layer in PyTorch and the corresponding run in MindSpore.

    Attributes:
        pair: the layers.
        torch: the index of the call in PyTorch's recording.
        mindspore: the index in MindSpore's; None if its model could not run.
    """

    pair: Pair
    torch: int
    mindspore: int | None


def align(
    pairs: Sequence[Pair],
    layers: tuple[Sequence[Layer], Sequence[Layer]],
    torch: Sequence[Call],
    mindspore: Sequence[Call] | None,
) -> list[Run]:
    """Return the corresponding runs of layers in PyTorch's running order.

    Layers with weights correspond by their pairs, and others by their kinds between these. Layers whose arrays are
    those of several layers do not run alone in one of the models, so they have no run.

    Args:
        pairs: the layers with weights.
        layers: all layers of PyTorch and of MindSpore.
        torch: PyTorch's calls.
        mindspore: MindSpore's calls; None if its model could not run.
    """
    tables = [{layer.name: layer for layer in side} for side in layers]
    single = [(i, pair) for i, pair in enumerate(pairs) if not any(isinstance(x, MergedLayer) for x in pair)]
    own = _tokens([tables[0][call.name] for call in torch], {pair.torch.name: i for i, pair in single})
    right = layers[1] if mindspore is None else [tables[1][call.name] for call in mindspore]
    other = _tokens(right, {pair.mindspore.name: i for i, pair in single})
    found = {(token, count): index for index, (token, count) in enumerate(_counted(other)) if token.isdigit()}
    matched = {i: found[key] for i, key in enumerate(_counted(own)) if key in found}
    for i, j, size in difflib.SequenceMatcher(None, own, other, autojunk=False).get_matching_blocks():
        matched |= {i + k: j + k for k in range(size) if not own[i + k].isdigit() and own[i + k]}
    return [
        Run(Pair(tables[0][torch[i].name], right[j]), i, None if mindspore is None else j)
        for i, j in sorted(matched.items())
    ]


def _tokens(layers: Sequence[Layer], indices: dict[str, int]) -> list[str]:
    """Return the index of the pair for each layer with weights, the kind for others, and "" for those without run."""
    return [str(indices[x.name]) if x.name in indices else "" if x.kind == OWN or x.slots else x.kind for x in layers]


def _counted(tokens: Sequence[str]) -> list[tuple[str, int]]:
    """Return each token with the number of equal tokens before it."""
    seen: Counter[str] = Counter()
    found = []
    for token in tokens:
        found.append((token, seen[token]))
        seen[token] += 1
    return found
