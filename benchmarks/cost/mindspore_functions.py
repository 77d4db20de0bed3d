"""What a layer or model costs in MindSpore, as functions to be timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
from mindspore import nn, ops
from mindspore.experimental import optim

from maam.errors import ShapeError, SpecError
from maam.mindspore.arrays import from_numpy
from maam.mindspore.weights import build
from maam.spec import Node

Call = Callable[[], object]
RIVALS: dict[str, list[str]] = {"layers": [], "models": []}
"""What only this framework has."""


def make_functions(name: str, node: Node | None, x: Any, kinds: list[str]) -> dict[str, Call]:
    """What to time for a case on the batch x (N, C, H, W), by kind of `KINDS`, in graph mode."""
    if node is None:
        raise SpecError(f"cases: {name!r} is for PyTorch alone")
    ms.set_context(mode=ms.GRAPH_MODE)
    return {kind: KINDS[kind](build(node, seed=0), from_numpy(x)) for kind in kinds}


def _infer(cell: nn.Cell, x: ms.Tensor) -> Call:
    return lambda: cell(x).asnumpy()


def _fused(cell: nn.Cell, x: ms.Tensor) -> Call:
    cell.reparameterize()
    return _infer(cell, x)


def _step(cell: nn.Cell, x: ms.Tensor) -> Call:
    """Forward, backward of the mean square, and a step of SGD with momentum; gradient and optimizer are two graphs."""
    if len(x) < 2:
        raise ShapeError("a training step needs at least 2 images: batch norm has no variance of one value")
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
    "inference, fused": _fused,
    "training step fp32": _step,
}
