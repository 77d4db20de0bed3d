"""The cases that need a wider bound than the others: each with its reason and where it is known upstream."""

from __future__ import annotations

TRAINED_GRADIENT_FACTORS = {
    # torch.compile on a CPU sums whole maps in longer runs than eager PyTorch's pairwise summation, so gradients that
    # are sums over a batch of maps (fusion weights, batch norm) come out less exact: 2 times on maam_cifar10_2m3, 5.5
    # times on maam_cifar10. `python tools/compiled_sums.py` shows it for a plain sum.
    # https://github.com/pytorch/pytorch/issues/151400, https://github.com/pytorch/pytorch/pull/156296
    "torch compiled": 10.0,
}
"""By runner: how many times PyTorch's own float32 error a gradient at trained weights may be off (others: 3)."""
