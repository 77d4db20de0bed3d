"""Training steps of a MindSpore model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, amp, nn, ops
from mindspore.experimental import optim

from maam.mindspore.arrays import assign, from_numpy, parameters_by_name, to_numpy, unwrap
from maam.mindspore.containers import Container
from maam.mindspore.distributed import make_reducer, mean_over_processes
from maam.training.optimizer import Optimizer
from maam.training.protocol import LossScale, Objective, OptimizerState

if TYPE_CHECKING:
    from maam.mindspore.runner import Runner

Array = np.ndarray[Any, Any]

OPTIMIZERS = {"sgd": optim.SGD, "adam": optim.AdamW, "adamw": optim.AdamW}
"""Adam as AdamW without decoupled decay: MindSpore's own Adam does not correct the bias of eps, which at eps 1e-8
halves the first updates of small gradients. The L2 term is added to the gradients here."""

MOMENTS = {"momentum_buffer": "accum", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}
"""What MindSpore's optimizers call the moments."""
NORM_EPS = 1e-6
"""What PyTorch adds to the norm of all gradients before it divides by it."""
INITIAL_SCALE, SCALE_FACTOR, SCALE_WINDOW = 65536.0, 2, 2000
"""The loss scale at first, what it grows and shrinks by, and the good steps before it grows: PyTorch's."""

_each = ops.HyperMap()
"""Over tuples of tensors: a loop in Python becomes two calls inside each other for each, and a graph may have 1,000."""
_sum_of_squares, _product, _with_penalty, _move = map(
    ops.MultitypeFuncGraph, ("sum_of_squares", "product", "with_penalty", "move")
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


class Trainer:
    """A MindSpore model with an optimizer; see `maam.training.Trainer`."""

    def __init__(self, runner: Runner, optimizer: Optimizer, objective: Objective) -> None:
        self.runner = runner
        self.optimizer = optimizer
        self.objective = objective
        runner.enter()
        own = parameters_by_name(unwrap(runner.model))
        self.names = [name for _, names in optimizer.groups(runner.spec) for name in names]
        groups = [
            {"params": [own[name] for name in names], "weight_decay": 0.0 if optimizer.name == "adam" else decay}
            for decay, names in optimizer.groups(runner.spec)
        ]
        self.native = OPTIMIZERS[optimizer.name](groups, lr=optimizer.lr, **optimizer.settings)
        self.steps = self.applied = 0
        self.average = _Average(own) if objective.average else None
        self.scaler: Any = None
        if objective.precision == "fp16":
            self.scaler = amp.DynamicLossScaler(INITIAL_SCALE, SCALE_FACTOR, SCALE_WINDOW)
        self._model = _mixed(runner.model, objective.precision)
        for _, cell in self._model.cells_and_names():  # mixed precision has filled `cell_list` anew
            if isinstance(cell, Container):
                cell.pool_first()
        self._weights = ParameterTuple(own[name] for name in self.names)
        self._penalties = tuple(decay for decay, names in optimizer.groups(runner.spec) for _ in names)
        self._differentiate = ms.value_and_grad(self._loss, None, self._weights, has_aux=True)
        self._gradient = runner.compiled(self._measured)
        self._reducer = make_reducer(self._weights)
        self._evaluator: Runner | None = None

    def prepare(self, images: Array, labels: Array) -> tuple[Tensor, Tensor]:
        """A batch on the device; images (N, C, H, W), labels int32 (N,)."""
        return self.runner.tensor(images), from_numpy(np.asarray(labels, np.int32))

    def update(self, batch: tuple[Tensor, Tensor], lr: float, decay: float = 0.0) -> Tensor:
        """One update in training mode by mean cross entropy; `decay` is the moving average's.

        Returns (loss, accuracy) before the update, float32 (2,).
        """
        self.runner.enter()
        self._model.set_train()
        for rate in self.native.lrs:
            assign(rate, np.array(lr))
        scale = 1.0 if self.scaler is None else float(self.scaler.scale_value.asnumpy())
        found, gradients = self._gradient(*batch, Tensor(scale, ms.float32))
        if self.scaler is None or self._all_finite(gradients):
            self.native(gradients)
            self.applied += 1
        if self.average is not None:
            self.average(Tensor(1 - decay, ms.float32))
        self.steps += 1
        return found

    def seed(self, value: int) -> None:
        """Do nothing: a dropout kernel that has run counts on by itself, whatever the seed."""

    def fetch(self, found: Sequence[Tensor]) -> Array:
        """What updates returned, float64 (len(found), 2), the mean over all processes; waits for the device."""
        return mean_over_processes(np.array([one.asnumpy() for one in found], np.float64).reshape(-1, 2))

    def step(self, x: Array, labels: Array, lr: float) -> float:
        """One update from x (N, C, H, W) and labels int32 (N,); the loss before it."""
        return float(self.update(self.prepare(x, labels), lr).asnumpy()[0])

    def predict(self, x: Array) -> Array:
        """Logits (N, classes) in inference mode, float32, by the averaged weights where there are any."""
        if self.average is None:
            return self.runner.forward(x).astype(np.float32)
        arrays = self.average.read()
        if self._evaluator is None:
            self._evaluator = self.runner.sibling(self.runner.spec, arrays)
        self._evaluator.write_arrays(arrays)
        return self._evaluator.forward(x).astype(np.float32)

    def read_state(self) -> OptimizerState:
        """Copies of all that the optimizer remembers; zeros where no step has been taken."""
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
        """Put it back."""
        self.steps, self.applied = state.step, state.step - state.skipped
        for moment, arrays in state.moments.items():
            for name, array in zip(self.names, getattr(self.native, MOMENTS[moment]), strict=True):
                assign(array, arrays[name])
        if self.optimizer.name != "sgd":
            assign(self.native.state_step, np.array(self.applied))
        else:  # where it is 1, the next step sets the momentum to the gradient, as the first one must
            for fresh in self.native.stat:
                assign(fresh, np.full(fresh.shape, float(self.applied == 0)))
        if self.average is not None:
            self.average.write(state.average)
        if self.scaler is not None and state.loss_scale is not None:
            assign(self.scaler.scale_value, np.array(state.loss_scale.scale))
            assign(self.scaler.counter, np.array(state.loss_scale.growth_tracker))

    def _loss(self, x: Tensor, labels: Tensor, scale: Tensor) -> Any:
        logits = self._model(x)
        smoothing = self.objective.label_smoothing
        loss = ops.cross_entropy(logits, labels, label_smoothing=smoothing)
        return loss * scale, logits

    def _measured(self, x: Tensor, labels: Tensor, scale: Tensor) -> Any:
        """(loss, accuracy) and the gradients as the optimizer takes them."""
        (loss, logits), gradients = self._differentiate(x, labels, scale)
        if self._reducer is not None:
            gradients = self._reducer(gradients)
        right = (logits.argmax(1) == labels).astype(loss.dtype).mean()
        return ops.stack((loss / scale, right)), self._treated(gradients, scale)

    def _treated(self, gradients: Any, scale: Tensor) -> Any:
        """Unscaled, clipped as one vector, and with Adam's L2 term, in PyTorch's order."""
        factor = 1 / scale
        if self.objective.clip_norm is not None:
            norm = ops.sqrt(ops.addn(_each(_sum_of_squares, gradients))) / scale
            factor = factor * ops.minimum(self.objective.clip_norm / (norm + NORM_EPS), Tensor(1.0, ms.float32))
        if self.objective.clip_norm is not None or self.scaler is not None:
            gradients = _each(ops.partial(_product, factor), gradients)
        if self.optimizer.name == "adam":
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
    """The moving averages of a model's parameters and running statistics."""

    def __init__(self, own: dict[str, Parameter]) -> None:
        super().__init__()
        self.names = tuple(own)
        self.own = ParameterTuple(own.values())
        copies = [
            Parameter(Tensor(to_numpy(p)), name=f"average.{name}", requires_grad=False) for name, p in own.items()
        ]
        self.copies = ParameterTuple(copies)

    def construct(self, weight: Tensor) -> Tensor:
        """Move each average towards its parameter by `weight`, a scalar."""
        _each(ops.partial(_move, weight), self.copies, self.own)
        return weight

    def read(self) -> dict[str, Array]:
        """Copies of the averages by canonical name."""
        return {name: to_numpy(copy) for name, copy in zip(self.names, self.copies, strict=True)}

    def write(self, arrays: Any) -> None:
        """Put averages back."""
        for name, copy in zip(self.names, self.copies, strict=True):
            assign(copy, arrays[name])


def _mixed(model: nn.Cell, precision: str) -> nn.Cell:
    """The model in mixed precision: batch norms and parameters stay in float32."""
    if precision == "fp32":
        return model
    return amp.auto_mixed_precision(model, "O2", ms.float16 if precision == "fp16" else ms.bfloat16)
