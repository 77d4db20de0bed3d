"""The adapter of a user's PyTorch module for a port; see `maam.backend.adapter.ModelAdapter`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maam.backend.adapter import Call, Layer, Slot, is_dropout, kind_of
from maam.errors import PortingError
from maam.torch.arrays import from_numpy, to_numpy
from maam.weights.match import is_batch_counter

Array = np.ndarray[Any, Any]


class ModelAdapter:
    """A module in eager mode, on its present device."""

    framework = "torch"

    def __init__(self, model: Any) -> None:
        if not isinstance(model, nn.Module):
            raise PortingError(f"expected a torch.nn.Module, got an object of type {type(model).__name__}")
        self.model = model

    def layers(self) -> list[Layer]:
        """Return all layers in the order of registration."""
        return [Layer(name, kind_of(type(m), "torch"), _slots(name, m)) for name, m in self._modules()]

    def read(self) -> dict[str, Array]:
        """Return copies of the arrays of all layers."""
        return {name: to_numpy(tensor) for name, tensor in self._tensors().items()}

    def write(self, arrays: Mapping[str, Array]) -> None:
        """Copy arrays into the model, cast to its dtypes."""
        own = self._tensors()
        with torch.no_grad():
            for name, array in arrays.items():
                own[name].copy_(from_numpy(array))

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return the output for x; train mode updates the running statistics, and dropout is off."""
        with torch.no_grad(), self._mode(training):
            return to_numpy(self._output(self._tensor(x)))

    def record(self, x: Array, training: bool = False) -> tuple[Array, list[Call]]:
        """Return the output for x, and the calls of all layers in the order of execution."""
        calls: list[Call] = []
        with _hooks(self._modules(), calls):
            output = self.forward(x, training)
        return output, calls

    def run_layer(self, name: str, inputs: Sequence[Array], training: bool = False) -> Array:
        """Return the output of the layer `name` for the given inputs of this layer."""
        layer = self.model.get_submodule(name)
        with torch.no_grad(), self._mode(training):
            return to_numpy(layer(*(self._tensor(x) for x in inputs)))

    def gradients(self, x: Array, cotangent: Array) -> dict[str, Array]:
        """Return the gradients of sum(output * cotangent) in train mode, for all trainable arrays."""
        own = {name: tensor for name, tensor in self._tensors().items() if tensor.requires_grad}
        with self._mode(True):
            scalar = (self._output(self._tensor(x)) * self._tensor(cotangent)).sum()
            found = torch.autograd.grad(scalar, list(own.values()), allow_unused=True)
        pairs = zip(own.items(), found, strict=True)
        return {name: to_numpy(torch.zeros_like(t) if g is None else g) for (name, t), g in pairs}

    def train(self, batches: Sequence[tuple[Array, Array]], lr: float, momentum: float, weight_decay: float) -> None:
        """Take a step of SGD for each (x, target).

        The loss is mean cross entropy for integer targets, and mean(output * target) for others.
        """
        own = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(own, lr, momentum=momentum, weight_decay=weight_decay)
        with self._mode(True):
            for x, target in batches:
                optimizer.zero_grad()
                _loss(self._output(self._tensor(x)), self._tensor(target)).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        optimizer.zero_grad()

    def double(self) -> ModelAdapter | None:
        """Return an adapter of a copy in float64; None if the module cannot be copied."""
        try:
            return ModelAdapter(copy.deepcopy(self.model).double())
        except Exception:  # a user's module may raise anything
            return None

    def _modules(self) -> list[tuple[str, nn.Module]]:
        return [(n, m) for n, m in self.model.named_modules() if not m._modules or _own(m)]

    def _tensors(self) -> dict[str, Tensor]:
        return {_join(name, local): t for name, module in self._modules() for local, t in _own(module).items()}

    def _tensor(self, x: Array) -> Tensor:
        like = next((p for p in self.model.parameters() if p.is_floating_point()), torch.empty(0))
        tensor = from_numpy(x).to(like.device)
        return tensor.to(like.dtype) if tensor.is_floating_point() else tensor.long()

    def _output(self, x: Tensor) -> Tensor:
        output = self.model(x)
        if not isinstance(output, Tensor):
            raise PortingError(f"expected one tensor as output of the module, got a {type(output).__name__}; wrap it")
        return output

    @contextmanager
    def _mode(self, training: bool) -> Iterator[None]:
        before = {module: module.training for module in self.model.modules()}
        counters = [(b, b.clone()) for b in self.model.buffers() if not b.is_floating_point()]
        self.model.train(training)
        for module in before:
            if is_dropout(type(module)):
                module.eval()
        try:
            yield
        finally:
            for module, mode in before.items():
                module.training = mode
            for buffer, value in counters:
                buffer.copy_(value)


def _own(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and persistent buffers of a module, without its children, that contain real numbers."""
    found: dict[str, Tensor | None] = dict(module._parameters)
    transient = module._non_persistent_buffers_set
    found |= {name: buffer for name, buffer in module._buffers.items() if name not in transient}
    return {n: t for n, t in found.items() if t is not None and t.is_floating_point() and not is_batch_counter(n)}


def _slots(name: str, module: nn.Module) -> dict[str, Slot]:
    return {n: Slot(_join(name, n), tuple(t.shape), t.requires_grad) for n, t in _own(module).items()}


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _loss(output: Tensor, target: Tensor) -> Tensor:
    if target.is_floating_point():
        return (output * target).mean()
    return nn.functional.cross_entropy(output, target)


@contextmanager
def _hooks(modules: Sequence[tuple[str, nn.Module]], calls: list[Call]) -> Iterator[None]:
    """Record the calls of modules; inputs are copied before a layer runs, because many layers change them in place."""
    entered: list[tuple[Array, ...] | None] = []
    handles = []
    for name, module in modules:
        handles.append(module.register_forward_pre_hook(_enter(entered), with_kwargs=True))
        handles.append(module.register_forward_hook(_leave(name, entered, calls)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _enter(entered: list[tuple[Array, ...] | None]) -> Callable[[Any, Any, Any], None]:
    def hook(_module: Any, inputs: Any, named: Any) -> None:
        plain = not named and all(isinstance(x, Tensor) for x in inputs)
        entered.append(tuple(to_numpy(x) for x in inputs) if plain else None)

    return hook


def _leave(name: str, entered: list[tuple[Array, ...] | None], calls: list[Call]) -> Callable[[Any, Any, Any], None]:
    def hook(_module: Any, _inputs: Any, output: Any) -> None:
        calls.append(Call(name, entered.pop(), to_numpy(output) if isinstance(output, Tensor) else None))

    return hook
