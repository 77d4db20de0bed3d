"""Pruning a weights file."""

from __future__ import annotations

from typing import NamedTuple

from maam.files import check_target
from maam.pruning.rewrite import prune
from maam.spec import Model, Node
from maam.weights import write_weights
from maam.weights.exchange import PathLike, read_whole
from maam.weights.file import check_suffix


class Pruned(NamedTuple):
    """Parameters before and after, and multiply-accumulates (0 for a layer, which names no input size)."""

    spec: Node
    parameters: tuple[int, int]
    macs: tuple[int, int]


def prune_file(
    src: PathLike, dst: PathLike, *, min_weight: float = 0.0, channels: float = 0.0, overwrite: bool = False
) -> Pruned:
    """Write the pruned form of the weights file `src` to `dst`; arguments as in `prune`.

    Raises:
        DeploymentError: an argument is out of range, nothing would be dropped, or `dst` cannot be written or exists.
        WeightsError: `src` is missing or broken, or `dst` has the suffix of another format.
    """
    check_suffix(dst)
    check_target(dst, overwrite=overwrite)
    before, arrays = read_whole(src)
    after, kept = prune(before, arrays, min_weight=min_weight, channels=channels)
    write_weights(dst, after, kept)
    macs = (before.macs(before.input_shape), after.macs(before.input_shape)) if isinstance(before, Model) else (0, 0)
    return Pruned(after, (before.num_parameters, after.num_parameters), macs)
