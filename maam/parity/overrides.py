"""The cases that need a wider bound than the others: each with its reason and where it is known upstream."""

from __future__ import annotations

from typing import NamedTuple

from maam.parity.kinks import DEEP
from maam.spec import BatchNorm2d, Node


class Rounding(NamedTuple):
    """How many times as much rounding as in any other runner is allowed for, and how many times as much at most."""

    times: float = 1.0
    most: float = 1.0


ROUNDING = {
    # torch.compile on a CPU sums whole maps in longer runs than eager PyTorch's pairwise summation: sums over a batch
    # of maps (a batch norm's statistics, gradients of fusion weights and batch norms) come out less exact: 2 times
    # on maam_cifar10_2m3, 5.5 times on maam_cifar10, 11 times in the first batch norm of mafc_v2.
    # `python tools/compiled_sums.py` shows it for a plain sum.
    # https://github.com/pytorch/pytorch/issues/151400, https://github.com/pytorch/pytorch/pull/156296
    "torch compiled": Rounding(10 / 3, most=10),
}
"""By runner: what its bounds allow for at trained weights (3 times PyTorch's own rounding elsewhere) and, where it adds
up over more than `DEEP` batch norms, in statistics and steps too."""


def rounding(runner: str, spec: Node | None = None) -> Rounding:
    """What is allowed for in a runner of this name; with a spec, only if that is deep."""
    if spec is not None and sum(isinstance(node, BatchNorm2d) for _, node in spec.walk()) <= DEEP:
        return Rounding()
    return ROUNDING.get(runner, Rounding())
