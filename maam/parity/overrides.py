"""The cases that need a wider bound than the others: each with its reason and where it is known upstream."""

from __future__ import annotations

ROUNDING = {
    # torch.compile on a CPU sums whole maps in longer runs than eager PyTorch's pairwise summation: sums over a batch
    # of maps (a batch norm's statistics, gradients of fusion weights and batch norms) come out less exact: 2 times
    # on maam_cifar10_2m3, 5.5 times on maam_cifar10. `python tools/compiled_sums.py` shows it for a plain sum.
    # https://github.com/pytorch/pytorch/issues/151400, https://github.com/pytorch/pytorch/pull/156296
    "torch compiled": 10 / 3,
}
"""By runner: how many times as much rounding as in any other (1) its bounds allow for."""


def rounding(runner: str) -> float:
    """What bounds on rounding are multiplied by for a runner of this name."""
    return ROUNDING.get(runner, 1.0)
