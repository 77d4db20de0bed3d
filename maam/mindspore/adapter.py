"""The adapter of a user's MindSpore cell for a port; see `maam.backend.adapter.ModelAdapter`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from maam.backend.adapter import Call, Layer, Slot, is_dropout, kind_of
from maam.errors import PortingError
from maam.mindspore.arrays import DTYPES, NAMES, assign, from_numpy, to_numpy
from maam.spec import Role

Array = np.ndarray[Any, Any]
_NORM_NAMES = {NAMES[Role.NORM_WEIGHT]: "weight", NAMES[Role.NORM_BIAS]: "bias"} | {
    NAMES[Role.RUNNING_MEAN]: "running_mean",
    NAMES[Role.RUNNING_VAR]: "running_var",
}
_OTHER_NAMES = {"embedding": {"embedding_table": "weight"}, "prelu": {"w": "weight"}}
"""PyTorch's names of arrays, by the kind of layer and by MindSpore's name of the array."""


class ModelAdapter:
    """A cell in PyNative mode, because graph mode runs no hooks."""

    framework = "mindspore"

    def __init__(self, model: Any) -> None:
        if not isinstance(model, nn.Cell):
            raise PortingError(f"expected a mindspore.nn.Cell, got an object of type {type(model).__name__}")
        self.model = model

    def layers(self) -> list[Layer]:
        """Return all layers in the order of registration."""
        found = []
        for name, cell in self._cells():
            kind = kind_of(type(cell), "mindspore")
            slots = {
                _torch_name(kind, local): Slot(_join(name, local), tuple(p.shape), p.requires_grad)
                for local, p in _own(cell).items()
            }
            found.append(Layer(name, kind, slots))
        return found

    def read(self) -> dict[str, Array]:
        """Return copies of the arrays of all layers."""
        return {name: to_numpy(parameter) for name, parameter in self._parameters().items()}

    def write(self, arrays: Mapping[str, Array]) -> None:
        """Copy arrays into the model, cast to its dtypes."""
        own = self._parameters()
        for name, array in arrays.items():
            assign(own[name], array)

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return the output for x; train mode updates the running statistics, and dropout is off."""
        with self._mode(training):
            return to_numpy(self._output(self._tensor(x)))

    def record(self, x: Array, training: bool = False) -> tuple[Array, list[Call]]:
        """Return the output for x, and the calls of all layers in the order of execution."""
        calls: list[Call] = []
        with _hooks(self._cells(), calls):
            output = self.forward(x, training)
        return output, calls

    def run_layer(self, name: str, inputs: Sequence[Array], training: bool = False) -> Array:
        """Return the output of the layer `name` for the given inputs of this layer."""
        layer = dict(self.model.cells_and_names())[name]
        with self._mode(training):
            return to_numpy(layer(*(self._tensor(x) for x in inputs)))

    def gradients(self, x: Array, cotangent: Array) -> dict[str, Array]:
        """Return the gradients of sum(output * cotangent) in train mode, for all trainable arrays."""
        own = {name: p for name, p in self._parameters().items() if p.requires_grad}
        with self._mode(True):
            tensors = self._tensor(x), self._tensor(cotangent)
            gradient = ms.grad(lambda x, c: (self._output(x) * c).sum(), None, ms.ParameterTuple(own.values()))
            return {name: to_numpy(g) for name, g in zip(own, gradient(*tensors), strict=True)}

    def train(self, batches: Sequence[tuple[Array, Array]], lr: float, momentum: float, weight_decay: float) -> None:
        """Take a step of SGD for each (x, target).

        The loss is mean cross entropy for integer targets, and mean(output * target) for others.
        """
        own = ms.ParameterTuple(p for p in self._parameters().values() if p.requires_grad)
        groups = [
            {"params": list(own), "weight_decay": weight_decay}
        ]  # without a group, SGD skips weight decay of gamma and beta
        optimizer = nn.SGD(groups, lr, momentum=momentum)
        with self._mode(True):
            step = ms.value_and_grad(lambda x, target: _loss(self._output(x), target), None, own)
            for x, target in batches:
                optimizer(step(self._tensor(x), self._tensor(target))[1])

    def double(self) -> ModelAdapter | None:
        """Return None: MindSpore has no float64 convolution."""
        return None

    def _cells(self) -> list[tuple[str, nn.Cell]]:
        return [(name, cell) for name, cell in self.model.cells_and_names() if not cell._cells or _own(cell)]

    def _parameters(self) -> dict[str, Parameter]:
        return {_join(name, local): p for name, cell in self._cells() for local, p in _own(cell).items()}

    def _tensor(self, x: Array) -> Tensor:
        if x.dtype.kind != "f":
            return from_numpy(x.astype(np.int32))
        dtype = next((p.dtype for p in self.model.get_parameters()), ms.float32)
        return from_numpy(x.astype(np.float32)).astype(dtype)

    def _output(self, x: Tensor) -> Tensor:
        output = self.model(x)
        if not isinstance(output, Tensor):
            raise PortingError(f"expected one tensor as output of the cell, got a {type(output).__name__}; wrap it")
        return output

    @contextmanager
    def _mode(self, training: bool) -> Iterator[None]:
        mode = ms.get_context("mode")
        before = {cell: cell.training for _, cell in self.model.cells_and_names()}
        ms.set_context(mode=ms.PYNATIVE_MODE)
        self.model.set_train(training)
        for cell in before:
            if is_dropout(type(cell)):
                cell.set_train(False)
        try:
            yield
        except Exception:
            _settle()
            raise
        finally:
            for cell, was in before.items():
                cell.set_train(was)
            ms.set_context(mode=mode)


def _settle() -> None:
    """Discard pending errors of a failed model: PyNative is asynchronous and would raise them at a later read."""
    with suppress(Exception):
        to_numpy(from_numpy(np.zeros(1, np.float32)) + 1)


def _own(cell: nn.Cell) -> dict[str, Parameter]:
    return {n: p for n, p in cell._params.items() if p is not None and p.dtype in DTYPES and p.dtype != ms.int32}


def _torch_name(kind: str, name: str) -> str:
    names = _NORM_NAMES if kind.endswith("norm") else _OTHER_NAMES.get(kind, {})
    return names.get(name, name)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _loss(output: Tensor, target: Tensor) -> Tensor:
    if target.dtype == ms.int32:
        return ops.cross_entropy(output, target)
    return (output * target).mean()


@contextmanager
def _hooks(cells: Sequence[tuple[str, nn.Cell]], calls: list[Call]) -> Iterator[None]:
    handles = [cell.register_forward_hook(_leave(name, calls)) for name, cell in cells]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _leave(name: str, calls: list[Call]) -> Callable[[Any, Any, Any], None]:
    def hook(_cell: Any, inputs: Any, output: Any) -> None:
        plain = all(isinstance(x, Tensor) for x in inputs)
        calls.append(
            Call(
                name,
                tuple(to_numpy(x) for x in inputs) if plain else None,
                to_numpy(output) if isinstance(output, Tensor) else None,
            )
        )

    return hook
