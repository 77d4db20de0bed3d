"""PyTorch models driven by NumPy arrays: runners, trainers, and the processes of distributed training."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import get_ema_multi_avg_fn

from maam.backend.optimizer import Optimizer, find_frozen
from maam.backend.protocol import Gradients, LossScale, Objective, OptimizerState, ProcessGroup, SingleProcess
from maam.backend.registry import find_entry
from maam.spec import Node
from maam.torch.arrays import (
    PRECISIONS,
    from_numpy,
    preserve_modes,
    read_arrays,
    tensors,
    to_numpy,
    unwrap,
    write_arrays,
)
from maam.torch.modules import Container
from maam.torch.weights import build
from maam.weights.exchange import spec_of

Array = np.ndarray[Any, Any]
EAGER, COMPILED = "torch", "torch compiled"
"""The names of the modes in the registry."""
OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class Processes:
    """The processes that torchrun started; see `maam.backend.protocol.ProcessGroup`."""

    def __init__(self) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def barrier(self) -> None:
        """Wait until all processes have arrived."""
        distributed.barrier()

    def gather(self, array: Array) -> Array:
        """Concatenate the arrays (N, ...) of all processes along the first axis."""
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, array)
        return np.concatenate(found)


def join_processes(device: str) -> ProcessGroup:
    """Join the processes that torchrun started; return `SingleProcess` without torchrun."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return SingleProcess()
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    return Processes()


def leave_processes() -> None:
    """Leave the process group."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def share_gradients(function: Any) -> Any:
    """Return a model's forward whose gradients are averaged over all processes."""
    return DistributedDataParallel(function) if _together() else function


def mean_over_processes(values: Tensor) -> Tensor:
    """Return the mean of each value over all processes."""
    if not _together():
        return values
    values = values.clone()
    distributed.all_reduce(values)
    return values / distributed.get_world_size()


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


class Trainer:
    """A PyTorch model with an optimizer; see `maam.backend.protocol.Trainer`."""

    def __init__(self, runner: Runner, optimizer: Optimizer, objective: Objective) -> None:
        self.runner = runner
        self.optimizer = optimizer
        self.objective = objective
        for module in runner.model.modules():
            if isinstance(module, Container):
                module.pool_first()
        own = tensors(runner.model)
        found = optimizer.groups(runner.spec, objective.freeze)
        self.names = {name: own[name] for group in found for name in group.names}
        self._frozen_norms = freeze(runner, objective.freeze)
        self.function = share_gradients(runner.function)
        groups = [
            {"params": [own[name] for name in names], "weight_decay": decay, "lr_factor": factor}
            for decay, factor, names in found
        ]
        self.native = OPTIMIZERS[optimizer.name](groups, lr=optimizer.lr, **optimizer.settings)
        self.scaler = torch.amp.GradScaler(runner.device.type, enabled=objective.precision == "fp16")
        self.average = {name: t.detach().clone() for name, t in own.items()} if objective.average else {}
        self._averaged = [own[name].detach() for name in self.average]
        self.steps = self.applied = 0
        self.native.register_step_post_hook(self._count)

    def prepare(self, images: Array, labels: Array) -> tuple[Tensor, Tensor]:
        """Return a batch on the device without waiting for the copy.

        Args:
            images: float32 (N, C, H, W).
            labels: int32 (N,), or the share of each class, float32 (N, classes).
        """
        targets = from_numpy(labels if labels.ndim == 2 else np.asarray(labels, np.int64))
        return self.runner.tensor(images), targets.to(self.runner.device, non_blocking=True)

    def update(self, batch: tuple[Tensor, Tensor], lr: float, decay: float | None = 0.0) -> Tensor:
        """Take one optimizer step on the mean cross entropy, in train mode; `decay` is that of the moving average.

        Returns:
            (loss, accuracy) before the update, float32 (2,).
        """
        self.runner.model.train()
        for norm in self._frozen_norms:
            norm.eval()
        for group in self.native.param_groups:
            group["lr"] = lr * group["lr_factor"]
        self.native.zero_grad()
        images, labels = batch
        with self._precision():
            logits = self.function(images)  # (N, classes)
        wide = logits.float() if self.objective.precision != "fp32" else logits
        loss = F.cross_entropy(wide, labels, label_smoothing=self.objective.label_smoothing)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._apply()
        if self.average and decay is not None:
            averages = list(self.average.values())
            get_ema_multi_avg_fn(decay)(averages, self._averaged, None)  # type: ignore[no-untyped-call]
            if self.objective.lookahead:
                with torch.no_grad():
                    torch._foreach_copy_(self._averaged, averages)
        self.steps += 1
        right = labels if labels.dim() == 1 else labels.argmax(1)
        return torch.stack([loss.detach(), (wide.detach().argmax(1) == right).to(loss.dtype).mean()])

    def seed(self, value: int) -> None:
        """Seed PyTorch's generator, which draws dropout masks."""
        torch.manual_seed(value)

    def fetch(self, found: Sequence[Tensor]) -> Array:
        """Wait for the results of updates and return them, float64 (len(found), 2), averaged over all processes."""
        if not found:
            return np.zeros((0, 2))
        return mean_over_processes(torch.stack(list(found))).double().cpu().numpy()

    def step(self, x: Array, labels: Array, lr: float) -> float:
        """Update the model from x (N, C, H, W) and labels int32 (N,); return the loss before the update."""
        return float(self.update(self.prepare(x, labels), lr)[0])

    def predict(self, x: Array) -> Array:
        """Return logits (N, classes) in inference mode, float32, from the averaged weights if there are any."""
        model = unwrap(self.runner.model).eval()
        with torch.inference_mode(), self._precision():
            logits = torch.func.functional_call(model, dict(self.average), self.runner.tensor(x))
        return to_numpy(logits.float())

    def read_state(self) -> OptimizerState:
        """Return copies of the optimizer's state; moments are zeros before the first step."""
        moments = {
            moment: {
                name: to_numpy(self.native.state[tensor].get(moment, torch.zeros_like(tensor)))
                for name, tensor in self.names.items()
            }
            for moment in self.optimizer.moments
        }
        average = {name: to_numpy(tensor) for name, tensor in self.average.items()}
        return OptimizerState(self.steps, moments, average, self._read_scale(), self.steps - self.applied)

    def write_state(self, state: OptimizerState) -> None:
        """Restore the optimizer's state."""
        self.steps, self.applied = state.step, state.step - state.skipped
        for name, tensor in self.names.items():
            own = self.native.state[tensor]
            for moment, arrays in state.moments.items():
                own[moment] = torch.empty_like(tensor).copy_(from_numpy(arrays[name]))
            if self.optimizer.name != "sgd":
                own["step"] = torch.tensor(float(self.applied))
        for name, tensor in self.average.items():
            tensor.copy_(from_numpy(state.average[name]))
        if state.loss_scale is not None and self.scaler.is_enabled():
            kept = {"scale": state.loss_scale.scale, "_growth_tracker": state.loss_scale.growth_tracker}
            self.scaler.load_state_dict({**self.scaler.state_dict(), **kept})

    def _precision(self) -> torch.autocast:
        mixed = self.objective.precision != "fp32"
        return torch.autocast(self.runner.device.type, PRECISIONS[self.objective.precision], enabled=mixed)

    def _apply(self) -> None:
        """Unscale and clip the gradients, and update the parameters."""
        if self.objective.clip_norm is not None:
            self.scaler.unscale_(self.native)
            clip_grad_norm_(self.names.values(), self.objective.clip_norm)
        self.scaler.step(self.native)
        self.scaler.update()

    def _count(self, *_: Any) -> None:
        """Count a step; the scaler skips steps whose gradients overflowed."""
        self.applied += 1

    def _read_scale(self) -> LossScale | None:
        if not self.scaler.is_enabled():
            return None
        state = self.scaler.state_dict()
        return LossScale(float(state["scale"]), int(state["_growth_tracker"]))


def freeze(runner: Runner, patterns: Sequence[str]) -> list[nn.Module]:
    """Exclude the parameters that the patterns match from training; return the batch norms with frozen statistics."""
    frozen = find_frozen(runner.spec, patterns)
    model = unwrap(runner.model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return [module for path, module in model.named_modules() if f"{path}.running_mean" in frozen]


class Runner:
    """A PyTorch model in eager mode or compiled by torch.compile; see `maam.backend.protocol.Runner`.

    Args:
        model: a module that maam built.
        compiled: whether to compile it.
        channels_last: whether to keep weights and maps in memory as (N, H, W, C), which makes convolutions faster.
    """

    def __init__(self, model: nn.Module, *, compiled: bool = False, channels_last: bool = False) -> None:
        self.name = COMPILED if compiled else EAGER
        self.capabilities = find_entry("torch").modes[self.name]
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = model.to(memory_format=self.memory_format)
        self.function = torch.compile(model, dynamic=False) if compiled else model

    @property
    def spec(self) -> Node:
        """The model's spec."""
        return spec_of(unwrap(self.model))

    def read_arrays(self) -> dict[str, Array]:
        """Return copies of all parameters and running statistics by canonical name."""
        return read_arrays(self.model)

    def write_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Copy arrays into the model, cast to its dtypes."""
        write_arrays(self.model, arrays)

    @contextmanager
    def preserve_state(self) -> Iterator[None]:
        """Restore the model's arrays and the mode of each layer on leaving the context."""
        arrays = self.read_arrays()
        with preserve_modes(self.model):
            try:
                yield
            finally:
                self.write_arrays(arrays)

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return the output for x (N, C, H, W); train mode updates the running statistics."""
        self.model.train(training)
        with torch.no_grad():
            return to_numpy(self.function(self.tensor(x)))

    def forward_layer(self, path: str, x: Array, training: bool = False) -> Array:
        """Return the output of the layer at a canonical path for the layer's input x, in eager mode."""
        layer = self.model.get_submodule(path)
        layer.train(training)
        with torch.no_grad():
            return to_numpy(layer(self.tensor(x)))

    def gradients(self, x: Array, cotangent: Array) -> Gradients:
        """Return the gradients of sum(output * cotangent) in train mode."""
        self.model.train()
        parameters = {name: t for name, t in tensors(self.model).items() if t.requires_grad}
        tensor = self.tensor(x).requires_grad_()
        output = self.function(tensor)
        scalar = (output * self.tensor(cotangent)).sum()
        variables = [tensor, *parameters.values()]
        found = torch.autograd.grad(scalar, variables, allow_unused=True)  # a variable that is not used gets zeros
        arrays = [to_numpy(torch.zeros_like(v) if g is None else g) for v, g in zip(variables, found, strict=True)]
        return Gradients(arrays[0], dict(zip(parameters, arrays[1:], strict=True)))

    def trainer(self, optimizer: Optimizer, objective: Objective = Objective()) -> Trainer:  # noqa: B008
        """Return a trainer of this model with a fresh optimizer."""
        return Trainer(self, optimizer, objective)

    def clone_with(self, spec: Node, arrays: Mapping[str, Array], dtype: str = "float32") -> Runner:
        """Build a model of `spec` with `arrays`, cast to `dtype`, and return its runner in the same mode.

        The device and the memory format are those of this runner.
        """
        model = build(spec, device=self.device, dtype=getattr(torch, dtype))
        write_arrays(model, arrays)
        channels_last = self.memory_format is torch.channels_last
        return Runner(model, compiled=self.function is not self.model, channels_last=channels_last)

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters(), torch.empty(0)).device

    def tensor(self, x: Array) -> Tensor:
        """Return `x` with the device, dtype and memory format of the parameters, without waiting for the copy."""
        like = next(self.model.parameters(), torch.empty(0))
        tensor = from_numpy(x).to(like.dtype)
        if tensor.dim() == 4:
            tensor = tensor.contiguous(memory_format=self.memory_format)
        if like.is_cuda:
            tensor = tensor.pin_memory()
        return tensor.to(like.device, non_blocking=True)
