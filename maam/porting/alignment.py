"""Which run of a layer stands for which: layers with weights by their pairs, the others between them by their kind."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from maam.porting.half import OWN, Call, Layer
from maam.porting.pairing import Pair


class Run(NamedTuple):
    """A run of a layer in PyTorch and its counterpart; None where MindSpore's model could not run."""

    pair: Pair
    torch: int
    mindspore: int | None


def align(
    pairs: Sequence[Pair],
    layers: tuple[Sequence[Layer], Sequence[Layer]],
    torch: Sequence[Call],
    mindspore: Sequence[Call] | None,
) -> list[Run]:
    """The runs that stand for each other, as indices into the two recordings, in PyTorch's running order."""
    tables = [{layer.name: layer for layer in side} for side in layers]
    own = _tokens([tables[0][call.name] for call in torch], {p.torch.name: i for i, p in enumerate(pairs)})
    right = layers[1] if mindspore is None else [tables[1][call.name] for call in mindspore]
    other = _tokens(right, {p.mindspore.name: i for i, p in enumerate(pairs)})
    found = {(token, count): index for index, (token, count) in enumerate(_counted(other)) if token.isdigit()}
    matched = {i: found[key] for i, key in enumerate(_counted(own)) if key in found}
    for i, j, size in difflib.SequenceMatcher(None, own, other, autojunk=False).get_matching_blocks():
        matched |= {i + k: j + k for k in range(size) if not own[i + k].isdigit() and own[i + k]}
    return [
        Run(Pair(tables[0][torch[i].name], right[j]), i, None if mindspore is None else j)
        for i, j in sorted(matched.items())
    ]


def _tokens(layers: Sequence[Layer], indices: dict[str, int]) -> list[str]:
    """A pair's number for a layer with weights, else its kind; nothing for one that cannot be told."""
    return [str(indices[x.name]) if x.name in indices else "" if x.kind == OWN else x.kind for x in layers]


def _counted(tokens: Sequence[str]) -> list[tuple[str, int]]:
    """Each with how often it stood there before."""
    seen: Counter[str] = Counter()
    found = []
    for token in tokens:
        found.append((token, seen[token]))
        seen[token] += 1
    return found
