"""The MindSpore room, driven by NumPy arrays: what training and parity need of a framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.experimental import optim

from maam.mindspore.arrays import (
    DTYPES,
    assign,
    from_numpy,
    parameters_by_name,
    read_arrays,
    to_numpy,
    unwrap,
    write_arrays,
)
from maam.mindspore.models import build
from maam.spec import Node
from maam.training.optimizer import Optimizer
from maam.training.protocol import Gradients, OptimizerState
from maam.weights.exchange import spec_of

Array = np.ndarray[Any, Any]

OPTIMIZERS = {"sgd": optim.SGD, "adam": optim.AdamW, "adamw": optim.AdamW}
"""Adam as AdamW without decoupled decay: MindSpore's own Adam does not correct the bias of eps, which at eps 1e-8
halves the first updates of small gradients. The L2 term is added to the gradients here."""

MOMENTS = {"momentum_buffer": "accum", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}
"""What MindSpore's optimizers call the moments."""


class Runner:
    """A MindSpore model in graph or PyNative mode; see `maam.training.Runner`."""

    def __init__(self, model: nn.Cell, *, graph: bool = True) -> None:
        self.name = "mindspore graph" if graph else "mindspore pynative"
        self.model = model
        self.graph = graph
        self._gradient: Any = None

    @property
    def spec(self) -> Node:
        """The model's spec."""
        return spec_of(unwrap(self.model))

    def read_arrays(self) -> dict[str, Array]:
        """Copies of all parameters and running statistics by canonical name."""
        return read_arrays(unwrap(self.model))

    def write_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Put arrays into the model, cast to its dtypes."""
        write_arrays(unwrap(self.model), arrays)

    def forward(self, x: Array, training: bool = False) -> Array:
        """The output for x (N, C, H, W); in training mode the running statistics move."""
        return self._run(self.model, x, training)

    def forward_layer(self, path: str, x: Array, training: bool = False) -> Array:
        """The output of the layer at a canonical path for its own input x."""
        return self._run(self._layer(path), x, training)

    def gradients(self, x: Array, cotangent: Array) -> Gradients:
        """Gradients of sum(output * cotangent) in training mode."""
        self.enter()
        self.model.set_train()
        own = {name: p for name, p in parameters_by_name(self.model).items() if p.requires_grad}
        if self._gradient is None:
            self._gradient = self.compiled(ms.grad(self._scalar, 0, ms.ParameterTuple(own.values())))
        found, parameters = self._gradient(self.tensor(x), self.tensor(cotangent))
        return Gradients(to_numpy(found), {n: to_numpy(g) for n, g in zip(own, parameters, strict=True)})

    def trainer(self, optimizer: Optimizer) -> Trainer:
        """A trainer of this model with a fresh optimizer."""
        return Trainer(self, optimizer)

    def sibling(self, spec: Node, arrays: Mapping[str, Array], dtype: str = "float32") -> Runner:
        """A runner of the same mode with a new model, its arrays cast to `dtype`."""
        model = build(spec, dtype=getattr(ms, dtype))
        write_arrays(model, arrays)
        return Runner(model, graph=self.graph)

    def enter(self) -> None:
        """Make this runner's mode MindSpore's, which knows one for the process."""
        ms.set_context(mode=ms.GRAPH_MODE if self.graph else ms.PYNATIVE_MODE)

    def compiled(self, function: Any) -> Any:
        """`function` as one graph in graph mode; in PyNative mode as it is."""
        return ms.jit(function) if self.graph else function

    def tensor(self, x: Array) -> Tensor:
        """`x` as a tensor of the parameters' dtype."""
        dtype = next((p.dtype for p in self.model.get_parameters()), ms.float32)
        return from_numpy(np.asarray(x).astype(DTYPES[dtype]))

    def _scalar(self, x: Tensor, cotangent: Tensor) -> Tensor:
        return (self.model(x) * cotangent).sum()

    def _layer(self, path: str) -> nn.Cell:
        cell = unwrap(self.model)
        for name in filter(None, path.split(".")):
            cell = cell._cells[name]
        return cell

    def _run(self, cell: nn.Cell, x: Array, training: bool) -> Array:
        self.enter()
        cell.set_train(training)
        return to_numpy(cell(self.tensor(x)))


class Trainer:
    """A MindSpore model with an optimizer; see `maam.training.Trainer`."""

    def __init__(self, runner: Runner, optimizer: Optimizer) -> None:
        self.runner = runner
        self.optimizer = optimizer
        runner.enter()
        own = parameters_by_name(runner.model)
        self.names = [name for _, names in optimizer.groups(runner.spec) for name in names]
        groups = [
            {"params": [own[name] for name in names], "weight_decay": 0.0 if optimizer.name == "adam" else decay}
            for decay, names in optimizer.groups(runner.spec)
        ]
        self.native = OPTIMIZERS[optimizer.name](groups, lr=optimizer.lr, **optimizer.settings)
        self.steps = 0
        self._weights = ms.ParameterTuple(own[name] for name in self.names)
        self._penalties = tuple(decay for decay, names in optimizer.groups(runner.spec) for _ in names)
        self._differentiate = ms.value_and_grad(self._loss, None, self._weights)
        self._gradient = runner.compiled(self._penalised if optimizer.name == "adam" else self._differentiate)

    def step(self, x: Array, labels: Array, lr: float) -> float:
        """One update in training mode by mean cross entropy; x (N, C, H, W), labels int32 (N,); the loss before it."""
        self.runner.enter()
        self.runner.model.set_train()
        for rate in self.native.lrs:
            assign(rate, np.array(lr))
        loss, gradients = self._gradient(self.runner.tensor(x), from_numpy(np.asarray(labels, np.int32)))
        self.native(gradients)
        self.steps += 1
        return float(loss.asnumpy())

    def read_state(self) -> OptimizerState:
        """Copies of the optimizer's moments; zeros where no step has been taken."""
        moments = {
            moment: {
                name: to_numpy(array)
                for name, array in zip(self.names, getattr(self.native, MOMENTS[moment]), strict=True)
            }
            for moment in self.optimizer.moments
        }
        return OptimizerState(self.steps, moments)

    def write_state(self, state: OptimizerState) -> None:
        """Put moments back."""
        self.steps = state.step
        for moment, arrays in state.moments.items():
            for name, array in zip(self.names, getattr(self.native, MOMENTS[moment]), strict=True):
                assign(array, arrays[name])
        if self.optimizer.name != "sgd":
            assign(self.native.state_step, np.array(state.step))

    def _penalised(self, x: Tensor, labels: Tensor) -> Any:
        loss, gradients = self._differentiate(x, labels)
        found = ()
        for index in range(len(gradients)):
            found = found + (gradients[index] + self._penalties[index] * self._weights[index],)
        return loss, found

    def _loss(self, x: Tensor, labels: Tensor) -> Tensor:
        return ops.cross_entropy(self.runner.model(x), labels)
