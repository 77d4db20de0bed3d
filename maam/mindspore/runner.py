"""The MindSpore room, driven by NumPy arrays: what training and parity need of a framework."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from maam.mindspore.arrays import (
    DTYPES,
    from_numpy,
    parameters_by_name,
    read_arrays,
    to_numpy,
    unwrap,
    write_arrays,
)
from maam.mindspore.models import build
from maam.mindspore.trainer import Trainer
from maam.spec import Node
from maam.training.optimizer import Optimizer
from maam.training.protocol import Gradients, Objective
from maam.weights.exchange import spec_of

Array = np.ndarray[Any, Any]


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

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Leave the model with the arrays and modes, layer by layer, that it has now."""
        arrays, modes = self.read_arrays(), {cell: cell.training for _, cell in self.model.cells_and_names()}
        try:
            yield
        finally:
            self.write_arrays(arrays)
            for cell, training in modes.items():
                cell.set_train(training)  # of a container first, then of what it holds

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

    def trainer(self, optimizer: Optimizer, objective: Objective = Objective()) -> Trainer:  # noqa: B008
        """A trainer of this model with a fresh optimizer."""
        return Trainer(self, optimizer, objective)

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
