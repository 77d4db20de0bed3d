"""MindSpore models driven by NumPy arrays: runners, trainers, and the processes of distributed training."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, amp, communication, nn, ops
from mindspore.experimental import optim

from maam._signals import reinstall
from maam.backend.optimizer import Optimizer, find_frozen
from maam.backend.protocol import Gradients, LossScale, Objective, OptimizerState, ProcessGroup, SingleProcess
from maam.backend.registry import find_entry
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
from maam.mindspore.cells import Container
from maam.mindspore.weights import build
from maam.spec import Node
from maam.weights.exchange import spec_of

Array = np.ndarray[Any, Any]
GRAPH, PYNATIVE = "mindspore graph", "mindspore pynative"
"""The names of the modes in the registry."""
OPTIMIZERS = {"sgd": optim.SGD, "adam": optim.AdamW, "adamw": optim.AdamW}
"""The optimizers by name. Adam is AdamW without decoupled decay; `Trainer` adds the L2 term to the gradients.

MindSpore's own Adam does not correct the bias of eps, which at eps 1e-8 halves the first updates of small gradients.
"""
MOMENTS = {"momentum_buffer": "accum", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}
"""The names of the moments in MindSpore's optimizers, by their names in `OptimizerState`."""
NORM_EPS = 1e-6
"""The term that PyTorch adds to the norm of all gradients before it divides by it."""
INITIAL_SCALE, SCALE_FACTOR, SCALE_WINDOW = 65536.0, 2, 2000
"""The first loss scale, the factor of its changes, and the steps without overflow before it grows, as in PyTorch."""


class Processes:
    """The processes that msrun started; see `maam.backend.protocol.ProcessGroup`."""

    def __init__(self) -> None:
        self.rank, self.size = communication.get_rank(), communication.get_group_size()

    def barrier(self) -> None:
        """Wait until all processes have arrived."""
        mean_over_processes(np.zeros(1, np.float32))

    def gather(self, array: Array) -> Array:
        """Concatenate the arrays (N, ...) of all processes along the first axis; N may differ."""
        everything = ops.AllGather()
        lengths = everything(Tensor(np.array([len(array)], np.int32))).asnumpy()
        longest = int(lengths.max())
        padding = [(0, longest - len(array))] + [(0, 0)] * (array.ndim - 1)
        found = everything(Tensor(np.pad(array, padding))).asnumpy().reshape(self.size, longest, *array.shape[1:])
        return np.concatenate([part[:length] for part, length in zip(found, lengths, strict=True)])


def join_processes(device: str) -> ProcessGroup:
    """Join the processes that msrun started; return `SingleProcess` without msrun."""
    if int(os.environ.get("MS_WORKER_NUM", "1")) < 2:
        return SingleProcess()
    if not communication.GlobalComm.INITED:
        communication.init()
    ms.set_auto_parallel_context(parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=True)
    return Processes()


def leave_processes() -> None:
    """Leave the process group."""
    if communication.GlobalComm.INITED:
        communication.release()


def make_reducer(weights: Any) -> nn.Cell | None:
    """Return a cell that averages the gradients of `weights` over all processes; None in a single process."""
    if not _together():
        return None
    return nn.DistributedGradReducer(weights, mean=True, degree=communication.get_group_size())


def mean_over_processes(values: Array) -> Array:
    """Return the mean of each value over all processes."""
    if not _together():
        return values
    total = ops.AllReduce()(Tensor(values.astype(np.float32))).asnumpy()
    return np.asarray(total / communication.get_group_size())


def _together() -> bool:
    return bool(communication.GlobalComm.INITED) and communication.get_group_size() > 1


_each = ops.HyperMap()
"""A map over tuples of tensors. A Python loop would nest two calls for each tensor; a graph allows 1,000 levels."""
_sum_of_squares, _product, _with_penalty, _move, _copy = map(
    ops.MultitypeFuncGraph, ("sum_of_squares", "product", "with_penalty", "move", "copy")
)


@_sum_of_squares.register("Tensor")  # type: ignore[untyped-decorator]
def _(gradient: Tensor) -> Tensor:
    return ops.square(gradient).sum()


@_product.register("Tensor", "Tensor")  # type: ignore[untyped-decorator]
def _(factor: Tensor, gradient: Tensor) -> Tensor:
    return gradient * factor


@_with_penalty.register("Number", "Tensor", "Tensor")  # type: ignore[untyped-decorator]
def _(penalty: float, weight: Tensor, gradient: Tensor) -> Tensor:
    return gradient + penalty * weight


@_move.register("Tensor", "Tensor", "Tensor")  # type: ignore[untyped-decorator]
def _(share: Tensor, copy: Tensor, own: Tensor) -> Tensor:
    return ops.assign(copy, copy + share * (own - copy))


@_copy.register("Tensor", "Tensor")  # type: ignore[untyped-decorator]
def _(own: Tensor, copy: Tensor) -> Tensor:
    return ops.assign(own, copy)


class Trainer:
    """A MindSpore model with an optimizer; see `maam.backend.protocol.Trainer`."""

    def __init__(self, runner: Runner, optimizer: Optimizer, objective: Objective) -> None:
        self.runner = runner
        self.optimizer = optimizer
        self.objective = objective
        runner.enter()
        own = parameters_by_name(unwrap(runner.model))
        found = optimizer.groups(runner.spec, objective.freeze)
        self.names = [name for group in found for name in group.names]
        self._factors = [group.lr_factor for group in found]
        self._frozen = find_frozen(runner.spec, objective.freeze)
        groups = [
            {"params": [own[name] for name in names], "weight_decay": 0.0 if optimizer.name == "adam" else decay}
            for decay, _, names in found
        ]
        self.native = OPTIMIZERS[optimizer.name](groups, lr=optimizer.lr, **optimizer.settings)
        self.steps = self.applied = 0
        self.average = _Average(own, objective.lookahead) if objective.average else None
        self.scaler: Any = None
        if objective.precision == "fp16":
            self.scaler = amp.DynamicLossScaler(INITIAL_SCALE, SCALE_FACTOR, SCALE_WINDOW)
        self._model = _mixed(runner.model, objective.precision)
        for _, cell in self._model.cells_and_names():  # mixed precision has filled `cell_list` again
            if isinstance(cell, Container):
                cell.pool_first()
        self._frozen_norms = self._find_frozen_norms()
        self._weights = ParameterTuple(own[name] for name in self.names)
        self._adds_penalty = optimizer.name == "adam"  # a graph cannot read a field of `optimizer`
        self._penalties = tuple(group.weight_decay for group in found for _ in group.names)
        self._differentiate = ms.value_and_grad(self._loss, None, self._weights, has_aux=True)
        self._gradient = runner.compiled(self._measured)
        self._reducer = make_reducer(self._weights)
        self._evaluator: Runner | None = None

    def prepare(self, images: Array, labels: Array) -> tuple[Tensor, Tensor]:
        """Return a batch on the device.

        Args:
            images: float32 (N, C, H, W).
            labels: int32 (N,), or the share of each class, float32 (N, classes).
        """
        return self.runner.tensor(images), from_numpy(labels if labels.ndim == 2 else np.asarray(labels, np.int32))

    def update(self, batch: tuple[Tensor, Tensor], lr: float, decay: float | None = 0.0) -> Tensor:
        """Take one optimizer step on the mean cross entropy, in train mode; `decay` is that of the moving average.

        Returns:
            (loss, accuracy) before the update, float32 (2,).
        """
        self.runner.enter()
        self._model.set_train()
        for norm in self._frozen_norms:
            norm.set_train(False)
        for rate, factor in zip(self.native.lrs, self._factors, strict=True):
            assign(rate, np.array(lr * factor))
        scale = 1.0 if self.scaler is None else float(self.scaler.scale_value.asnumpy())
        found, gradients = self._gradient(*batch, Tensor(scale, ms.float32))
        if self.scaler is None or self._all_finite(gradients):
            self.native(gradients)
            self.applied += 1
        if self.average is not None and decay is not None:
            self.average(Tensor(1 - decay, ms.float32))
        self.steps += 1
        reinstall()
        return found

    def seed(self, value: int) -> None:
        """Do nothing: a dropout kernel that has already run ignores a new seed."""

    def fetch(self, found: Sequence[Tensor]) -> Array:
        """Wait for the results of updates and return them, float64 (len(found), 2), averaged over all processes."""
        return mean_over_processes(np.array([one.asnumpy() for one in found], np.float64).reshape(-1, 2))

    def step(self, x: Array, labels: Array, lr: float) -> float:
        """Update the model from x (N, C, H, W) and labels int32 (N,); return the loss before the update."""
        return float(self.update(self.prepare(x, labels), lr).asnumpy()[0])

    def predict(self, x: Array) -> Array:
        """Return logits (N, classes) in inference mode, float32, from the averaged weights if there are any."""
        if self.average is None:
            return self.runner.forward(x).astype(np.float32)
        arrays = self.average.read()
        if self._evaluator is None:
            self._evaluator = self.runner.clone_with(self.runner.spec, arrays)
        self._evaluator.write_arrays(arrays)
        return self._evaluator.forward(x).astype(np.float32)

    def read_state(self) -> OptimizerState:
        """Return copies of the optimizer's state; moments are zeros before the first step."""
        moments = {
            moment: {
                name: to_numpy(array)
                for name, array in zip(self.names, getattr(self.native, MOMENTS[moment]), strict=True)
            }
            for moment in self.optimizer.moments
        }
        average = {} if self.average is None else self.average.read()
        return OptimizerState(self.steps, moments, average, self._read_scale(), self.steps - self.applied)

    def write_state(self, state: OptimizerState) -> None:
        """Restore the optimizer's state."""
        self.steps, self.applied = state.step, state.step - state.skipped
        for moment, arrays in state.moments.items():
            for name, array in zip(self.names, getattr(self.native, MOMENTS[moment]), strict=True):
                assign(array, arrays[name])
        if self.optimizer.name != "sgd":
            assign(self.native.state_step, np.array(self.applied))
        else:  # with 1, the next step sets the momentum to the gradient, as a first step does
            for fresh in self.native.stat:
                assign(fresh, np.full(fresh.shape, float(self.applied == 0)))
        if self.average is not None:
            self.average.write(state.average)
        if self.scaler is not None and state.loss_scale is not None:
            assign(self.scaler.scale_value, np.array(state.loss_scale.scale))
            assign(self.scaler.counter, np.array(state.loss_scale.growth_tracker))

    def _find_frozen_norms(self) -> list[nn.Cell]:
        """Return the batch norms whose running statistics do not change."""
        frozen = {id(p) for name, p in parameters_by_name(unwrap(self.runner.model)).items() if name in self._frozen}
        cells = [cell for _, cell in self._model.cells_and_names()]
        return [cell for cell in cells if id(getattr(cell, "moving_mean", None)) in frozen]

    def _loss(self, x: Tensor, labels: Tensor, scale: Tensor) -> Any:
        logits = self._model(x)  # (N, classes)
        smoothing = self.objective.label_smoothing
        loss = ops.cross_entropy(logits, labels, label_smoothing=smoothing)
        return loss * scale, logits

    def _measured(self, x: Tensor, labels: Tensor, scale: Tensor) -> Any:
        """Return (loss, accuracy), and the gradients for the optimizer."""
        (loss, logits), gradients = self._differentiate(x, labels, scale)
        if self._reducer is not None:
            gradients = self._reducer(gradients)
        own = labels if labels.ndim == 1 else labels.argmax(1)
        right = (logits.argmax(1) == own).astype(loss.dtype).mean()
        return ops.stack((loss / scale, right)), self._treated(gradients, scale)

    def _treated(self, gradients: Any, scale: Tensor) -> Any:
        """Unscale the gradients, clip them by their joint norm and add Adam's L2 term, in the order of PyTorch."""
        factor = 1 / scale
        if self.objective.clip_norm is not None:
            norm = ops.sqrt(ops.addn(_each(_sum_of_squares, gradients))) / scale
            factor = factor * ops.minimum(self.objective.clip_norm / (norm + NORM_EPS), Tensor(1.0, ms.float32))
        if self.objective.clip_norm is not None or self.scaler is not None:
            gradients = _each(ops.partial(_product, factor), gradients)
        if self._adds_penalty:
            gradients = _each(_with_penalty, self._penalties, self._weights, gradients)
        return gradients

    def _all_finite(self, gradients: Any) -> bool:
        finite = amp.all_finite(gradients)
        self.scaler.adjust(finite)
        return bool(finite.asnumpy())

    def _read_scale(self) -> LossScale | None:
        if self.scaler is None:
            return None
        return LossScale(float(self.scaler.scale_value.asnumpy()), int(self.scaler.counter.asnumpy()))


class _Average(nn.Cell):
    """The moving averages of a model's parameters and running statistics; with `lookahead` they replace the model's."""

    def __init__(self, own: dict[str, Parameter], lookahead: bool) -> None:
        super().__init__()
        self.lookahead = lookahead
        self.names = tuple(own)
        self.own = ParameterTuple(own.values())
        copies = [
            Parameter(Tensor(to_numpy(p)), name=f"average.{name}", requires_grad=False) for name, p in own.items()
        ]
        self.copies = ParameterTuple(copies)

    def construct(self, weight: Tensor) -> Tensor:
        """Move each average towards its parameter by the share `weight`, a scalar."""
        _each(ops.partial(_move, weight), self.copies, self.own)
        if self.lookahead:
            _each(_copy, self.own, self.copies)
        return weight

    def read(self) -> dict[str, Array]:
        """Return copies of the averages by canonical name."""
        return {name: to_numpy(copy) for name, copy in zip(self.names, self.copies, strict=True)}

    def write(self, arrays: Any) -> None:
        """Restore averages."""
        for name, copy in zip(self.names, self.copies, strict=True):
            assign(copy, arrays[name])


def _mixed(model: nn.Cell, precision: str) -> nn.Cell:
    """Return the model in mixed precision; batch norms and parameters stay in float32."""
    if precision == "fp32":
        return model
    return amp.auto_mixed_precision(model, "O2", ms.float16 if precision == "fp16" else ms.bfloat16)


class Runner:
    """A MindSpore model in graph or PyNative mode; see `maam.backend.protocol.Runner`.

    Args:
        model: a cell that maam built.
        graph: whether to run it in graph mode.
    """

    def __init__(self, model: nn.Cell, *, graph: bool = True) -> None:
        self.name = GRAPH if graph else PYNATIVE
        self.capabilities = find_entry("mindspore").modes[self.name]
        self.model = model
        self.graph = graph
        self._gradient: Any = None

    @property
    def spec(self) -> Node:
        """The model's spec."""
        return spec_of(unwrap(self.model))

    def read_arrays(self) -> dict[str, Array]:
        """Return copies of all parameters and running statistics by canonical name."""
        return read_arrays(unwrap(self.model))

    def write_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Copy arrays into the model, cast to its dtypes."""
        write_arrays(unwrap(self.model), arrays)

    @contextmanager
    def preserve_state(self) -> Iterator[None]:
        """Restore the model's arrays and the mode of each layer on leaving the context."""
        arrays, modes = self.read_arrays(), {cell: cell.training for _, cell in self.model.cells_and_names()}
        try:
            yield
        finally:
            self.write_arrays(arrays)
            for cell, training in modes.items():
                cell.set_train(training)  # of a container before the cells inside it

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return the output for x (N, C, H, W); train mode updates the running statistics."""
        return self._run(self.model, x, training)

    def forward_layer(self, path: str, x: Array, training: bool = False) -> Array:
        """Return the output of the layer at a canonical path for the layer's input x."""
        return self._run(self._layer(path), x, training)

    def gradients(self, x: Array, cotangent: Array) -> Gradients:
        """Return the gradients of sum(output * cotangent) in train mode."""
        self.enter()
        self.model.set_train()
        own = {name: p for name, p in parameters_by_name(self.model).items() if p.requires_grad}
        if self._gradient is None:
            self._gradient = self.compiled(ms.grad(self._scalar, 0, ms.ParameterTuple(own.values())))
        found, parameters = self._gradient(self.tensor(x), self.tensor(cotangent))
        reinstall()
        return Gradients(to_numpy(found), {n: to_numpy(g) for n, g in zip(own, parameters, strict=True)})

    def trainer(self, optimizer: Optimizer, objective: Objective = Objective()) -> Trainer:  # noqa: B008
        """Return a trainer of this model with a fresh optimizer."""
        return Trainer(self, optimizer, objective)

    def clone_with(self, spec: Node, arrays: Mapping[str, Array], dtype: str = "float32") -> Runner:
        """Build a model of `spec` with `arrays`, cast to `dtype`, and return its runner in the same mode."""
        model = build(spec, dtype=getattr(ms, dtype))
        write_arrays(model, arrays)
        return Runner(model, graph=self.graph)

    def enter(self) -> None:
        """Set MindSpore's mode to that of this runner; the mode applies to all models of the process."""
        ms.set_context(mode=ms.GRAPH_MODE if self.graph else ms.PYNATIVE_MODE)

    def compiled(self, function: Any) -> Any:
        """Return a function compiled into one graph in graph mode, and unchanged in PyNative mode."""
        return ms.jit(function) if self.graph else function

    def tensor(self, x: Array) -> Tensor:
        """Return `x` as a tensor with the dtype of the parameters."""
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
        output = to_numpy(cell(self.tensor(x)))
        reinstall()
        return output
