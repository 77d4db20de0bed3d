"""The cases that need a wider bound than the others: each with its reason and where it is known upstream."""

from __future__ import annotations

from maam.parity.kinks import DEEP
from maam.spec import BatchNorm2d, Node

ROUNDING = {
    # torch.compile on a CPU sums whole maps in longer runs than eager PyTorch's pairwise summation: sums over a batch
    # of maps (a batch norm's statistics, gradients of fusion weights and batch norms) come out less exact: 2 times
    # on maam_cifar10_2m3, 5.5 times on maam_cifar10. `python tools/compiled_sums.py` shows it for a plain sum.
    # https://github.com/pytorch/pytorch/issues/151400, https://github.com/pytorch/pytorch/pull/156296
    "torch compiled": 10 / 3,
}
"""By runner: how many times as much rounding as in any other (1) its bounds allow for, at trained weights (3 times
PyTorch's own elsewhere) and, where it adds up over more than `DEEP` batch norms, in statistics and steps too."""


def rounding(runner: str, spec: Node | None = None) -> float:
    """What bounds on rounding are multiplied by for a runner of this name; with a spec, only if that is deep."""
    if spec is not None and sum(isinstance(node, BatchNorm2d) for _, node in spec.walk()) <= DEEP:
        return 1.0
    return ROUNDING.get(runner, 1.0)
