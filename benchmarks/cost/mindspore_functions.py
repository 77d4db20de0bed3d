"""The functions that `benchmarks.cost.measure` times in MindSpore."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
from mindspore import nn, ops
from mindspore.experimental import optim

from maam.errors import ShapeError, SpecError
from maam.mindspore import build
from maam.mindspore.arrays import from_numpy
from maam.spec import Node

Call = Callable[[], object]
BASELINES: dict[str, list[str]] = {"layers": [], "models": []}
"""Cases without a spec."""


def make_function(name: str, node: Node | None, x: Any, kind: str) -> Call:
    """Return a function that runs a case in graph mode.

    Args:
        name: name of the case.
        node: spec of the case.
        x: batch, float32 (N, C, H, W).
        kind: one of `KINDS`.
    """
    if node is None:
        raise SpecError(f"cases: {name!r} is available in PyTorch only")
    ms.set_context(mode=ms.GRAPH_MODE)
    return KINDS[kind](build(node, seed=0), from_numpy(x))


def _infer(cell: nn.Cell, x: ms.Tensor) -> Call:
    return lambda: cell(x).asnumpy()


def _infer_fused(cell: nn.Cell, x: ms.Tensor) -> Call:
    cell.reparameterize()
    return _infer(cell, x)


def _train(cell: nn.Cell, x: ms.Tensor) -> Call:
    """Return a step of SGD with momentum on the mean square of the output; gradient and optimizer are two graphs."""
    if len(x) < 2:
        raise ShapeError("a training step needs at least 2 images, because batch norm computes a variance")
    cell.set_train()
    weights = ms.ParameterTuple(cell.trainable_params())
    optimizer = optim.SGD(list(weights), lr=1e-6, momentum=0.9)

    def loss_of(batch: ms.Tensor) -> ms.Tensor:
        return ops.square(cell(batch)).mean()

    differentiate = ms.jit(ms.value_and_grad(loss_of, None, weights))

    def step() -> None:
        loss, gradients = differentiate(x)
        optimizer(gradients)
        loss.asnumpy()

    return step


KINDS: dict[str, Callable[[nn.Cell, ms.Tensor], Call]] = {
    "inference fp32": _infer,
    "inference, fused": _infer_fused,
    "training step fp32": _train,
}
