"""The PyTorch room, driven by NumPy arrays: what training and parity need of a framework."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maam.spec import Node
from maam.torch.arrays import from_numpy, read_arrays, tensors, to_numpy, unwrap, write_arrays
from maam.torch.models import build
from maam.torch.trainer import Trainer
from maam.training.optimizer import Optimizer
from maam.training.protocol import Gradients, Objective
from maam.weights.exchange import spec_of

Array = np.ndarray[Any, Any]


class Runner:
    """A PyTorch model in eager mode, or compiled by torch.compile; see `maam.training.Runner`.

    With `channels_last` weights and feature maps lie in memory as (N, H, W, C), which convolutions prefer.
    """

    def __init__(self, model: nn.Module, *, compiled: bool = False, channels_last: bool = False) -> None:
        self.name = "torch compiled" if compiled else "torch"
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = model.to(memory_format=self.memory_format)
        self.function = torch.compile(model, dynamic=False) if compiled else model

    @property
    def spec(self) -> Node:
        """The model's spec."""
        return spec_of(unwrap(self.model))

    def read_arrays(self) -> dict[str, Array]:
        """Copies of all parameters and running statistics by canonical name."""
        return read_arrays(self.model)

    def write_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Put arrays into the model, cast to its dtypes."""
        write_arrays(self.model, arrays)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Leave the model with the arrays and modes, layer by layer, that it has now."""
        arrays, modes = self.read_arrays(), {module: module.training for module in self.model.modules()}
        try:
            yield
        finally:
            self.write_arrays(arrays)
            for module, training in modes.items():
                module.training = training

    def forward(self, x: Array, training: bool = False) -> Array:
        """The output for x (N, C, H, W); in training mode the running statistics move."""
        self.model.train(training)
        with torch.no_grad():
            return to_numpy(self.function(self.tensor(x)))

    def forward_layer(self, path: str, x: Array, training: bool = False) -> Array:
        """The output of the layer at a canonical path for its own input x; always in eager mode."""
        layer = self.model.get_submodule(path)
        layer.train(training)
        with torch.no_grad():
            return to_numpy(layer(self.tensor(x)))

    def gradients(self, x: Array, cotangent: Array) -> Gradients:
        """Gradients of sum(output * cotangent) in training mode."""
        self.model.train()
        parameters = {name: t for name, t in tensors(self.model).items() if t.requires_grad}
        tensor = self.tensor(x).requires_grad_()
        output = self.function(tensor)
        scalar = (output * self.tensor(cotangent)).sum()
        found = torch.autograd.grad(scalar, [tensor, *parameters.values()])
        arrays = [to_numpy(gradient) for gradient in found]
        return Gradients(arrays[0], dict(zip(parameters, arrays[1:], strict=True)))

    def trainer(self, optimizer: Optimizer, objective: Objective = Objective()) -> Trainer:  # noqa: B008
        """A trainer of this model with a fresh optimizer."""
        return Trainer(self, optimizer, objective)

    def sibling(self, spec: Node, arrays: Mapping[str, Array], dtype: str = "float32") -> Runner:
        """A runner of the same mode with a new model, its arrays cast to `dtype`."""
        model = build(spec, dtype=getattr(torch, dtype))
        write_arrays(model, arrays)
        return Runner(model, compiled=self.function is not self.model)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters(), torch.empty(0)).device

    def tensor(self, x: Array) -> Tensor:
        """`x` as a tensor of the parameters' device, dtype and memory format; the copy to a GPU goes on meanwhile."""
        like = next(self.model.parameters(), torch.empty(0))
        tensor = from_numpy(x).to(like.dtype)
        if tensor.dim() == 4:
            tensor = tensor.contiguous(memory_format=self.memory_format)
        if like.is_cuda:
            tensor = tensor.pin_memory()
        return tensor.to(like.device, non_blocking=True)
