"""The PyTorch room, driven by NumPy arrays: what training and parity need of a framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from maam.spec import Node
from maam.torch.arrays import from_numpy, read_arrays, tensors, to_numpy, unwrap, write_arrays
from maam.torch.models import build
from maam.training.optimizer import Optimizer
from maam.training.protocol import Gradients, OptimizerState
from maam.weights.exchange import spec_of

Array = np.ndarray[Any, Any]

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class Runner:
    """A PyTorch model in eager mode, or compiled by torch.compile; see `maam.training.Runner`."""

    def __init__(self, model: nn.Module, *, compiled: bool = False) -> None:
        self.name = "torch compiled" if compiled else "torch"
        self.model = model
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

    def forward(self, x: Array, training: bool = False) -> Array:
        """The output for x (N, C, H, W); in training mode the running statistics move."""
        self.model.train(training)
        with torch.no_grad():
            return to_numpy(self.function(self._tensor(x)))

    def forward_layer(self, path: str, x: Array, training: bool = False) -> Array:
        """The output of the layer at a canonical path for its own input x; always in eager mode."""
        layer = self.model.get_submodule(path)
        layer.train(training)
        with torch.no_grad():
            return to_numpy(layer(self._tensor(x)))

    def gradients(self, x: Array, cotangent: Array) -> Gradients:
        """Gradients of sum(output * cotangent) in training mode."""
        self.model.train()
        parameters = {name: t for name, t in tensors(self.model).items() if t.requires_grad}
        tensor = self._tensor(x).requires_grad_()
        output = self.function(tensor)
        scalar = (output * self._tensor(cotangent)).sum()
        found = torch.autograd.grad(scalar, [tensor, *parameters.values()])
        arrays = [to_numpy(gradient) for gradient in found]
        return Gradients(arrays[0], dict(zip(parameters, arrays[1:], strict=True)))

    def trainer(self, optimizer: Optimizer) -> Trainer:
        """A trainer of this model with a fresh optimizer."""
        return Trainer(self, optimizer)

    def sibling(self, spec: Node, arrays: Mapping[str, Array], dtype: str = "float32") -> Runner:
        """A runner of the same mode with a new model, its arrays cast to `dtype`."""
        model = build(spec, dtype=getattr(torch, dtype))
        write_arrays(model, arrays)
        return Runner(model, compiled=self.function is not self.model)

    def _tensor(self, x: Array) -> Tensor:
        like = next(self.model.parameters(), torch.empty(0))
        return from_numpy(x).to(device=like.device, dtype=like.dtype)


class Trainer:
    """A PyTorch model with an optimizer; see `maam.training.Trainer`."""

    def __init__(self, runner: Runner, optimizer: Optimizer) -> None:
        self.runner = runner
        self.optimizer = optimizer
        own = tensors(runner.model)
        self.names = {name: own[name] for _, names in optimizer.groups(runner.spec) for name in names}
        groups = [
            {"params": [own[name] for name in names], "weight_decay": decay}
            for decay, names in optimizer.groups(runner.spec)
        ]
        self.native = OPTIMIZERS[optimizer.name](groups, lr=optimizer.lr, **optimizer.settings)

    def step(self, x: Array, labels: Array, lr: float) -> float:
        """One update in training mode by mean cross entropy; x (N, C, H, W), labels int32 (N,); the loss before it."""
        self.runner.model.train()
        for group in self.native.param_groups:
            group["lr"] = lr
        self.native.zero_grad()
        logits = self.runner.function(self.runner._tensor(x))
        loss = F.cross_entropy(logits, from_numpy(labels).long().to(logits.device))
        loss.backward()  # type: ignore[no-untyped-call]
        self.native.step()
        return float(loss.detach())

    def read_state(self) -> OptimizerState:
        """Copies of the optimizer's moments; zeros where no step has been taken."""
        moments = {
            moment: {
                name: to_numpy(self.native.state[tensor].get(moment, torch.zeros_like(tensor)))
                for name, tensor in self.names.items()
            }
            for moment in self.optimizer.moments
        }
        steps = [int(state["step"]) for state in self.native.state.values() if "step" in state]
        return OptimizerState(max(steps, default=0), moments)

    def write_state(self, state: OptimizerState) -> None:
        """Put moments back."""
        for name, tensor in self.names.items():
            own = self.native.state[tensor]
            for moment, arrays in state.moments.items():
                own[moment] = from_numpy(arrays[name]).to(tensor)
            if self.optimizer.name != "sgd":
                own["step"] = torch.tensor(float(state.step))
