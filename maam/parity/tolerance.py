"""The cases that need a wider bound than the others: each with its reason and where it is known upstream."""

from __future__ import annotations

from typing import NamedTuple

from maam.parity.kinks import DEEP
from maam.spec import BatchNorm2d, Node


class Rounding(NamedTuple):
    """How many times as much rounding as elsewhere is allowed for.

    Attributes:
        trained: at trained weights, where it is 3 times PyTorch's own elsewhere.
        statistics: in the running statistics of a deep network.
        noise: in the ten steps of a deep network, of the noise measured.
        most: there, of the most that noise may add.
    """

    trained: float = 1.0
    statistics: float = 1.0
    noise: float = 1.0
    most: float = 1.0


MINDSPORE = Rounding(noise=10 / 3)
ROUNDING = {
    # Sums over a batch of maps (a batch norm's statistics and gradients, gradients of fusion weights) come out less
    # exact than by eager PyTorch's pairwise summation: by MindSpore 2 to 4 times, by torch.compile on a CPU, which sums
    # in longer runs, 1 to 7 times. `python tools/sums.py` shows it for one batch norm.
    # https://github.com/pytorch/pytorch/issues/151400, https://github.com/pytorch/pytorch/pull/156296
    "torch compiled": Rounding(trained=10 / 3, statistics=10 / 3, noise=10 / 3, most=10),
    "mindspore graph": MINDSPORE,
    "mindspore pynative": MINDSPORE,
}
"""By runner; a network is deep with more than `DEEP` batch norms, over which it adds up."""


def rounding(runner: str, spec: Node) -> Rounding:
    """What is allowed for in a runner of this name, for this network."""
    found = ROUNDING.get(runner, Rounding())
    deep = sum(isinstance(node, BatchNorm2d) for _, node in spec.walk()) > DEEP
    return found if deep else Rounding(trained=found.trained)
