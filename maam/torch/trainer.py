"""Training steps of a PyTorch model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import get_ema_multi_avg_fn

from maam.torch.arrays import from_numpy, tensors, to_numpy, unwrap
from maam.torch.containers import Container
from maam.torch.distributed import mean_over_processes, share_gradients
from maam.training.optimizer import Optimizer
from maam.training.protocol import LossScale, Objective, OptimizerState

if TYPE_CHECKING:
    from maam.torch.runner import Runner

Array = np.ndarray[Any, Any]

OPTIMIZERS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer:
    """A PyTorch model with an optimizer; see `maam.training.Trainer`."""

    def __init__(self, runner: Runner, optimizer: Optimizer, objective: Objective) -> None:
        self.runner = runner
        self.optimizer = optimizer
        self.objective = objective
        for module in runner.model.modules():
            if isinstance(module, Container):
                module.pool_first()
        own = tensors(runner.model)
        self.function = share_gradients(runner.function)
        self.names = {name: own[name] for _, names in optimizer.groups(runner.spec) for name in names}
        groups = [
            {"params": [own[name] for name in names], "weight_decay": decay}
            for decay, names in optimizer.groups(runner.spec)
        ]
        self.native = OPTIMIZERS[optimizer.name](groups, lr=optimizer.lr, **optimizer.settings)
        self.scaler = torch.amp.GradScaler(runner.device.type, enabled=objective.precision == "fp16")
        self.average = {name: t.detach().clone() for name, t in own.items()} if objective.average else {}
        self._averaged = [own[name].detach() for name in self.average]
        self.steps = self.applied = 0
        self.native.register_step_post_hook(self._count)

    def prepare(self, images: Array, labels: Array) -> tuple[Tensor, Tensor]:
        """A batch on the device, without waiting for the copy; images (N, C, H, W), labels int32 (N,)."""
        targets = from_numpy(np.asarray(labels, np.int64))
        return self.runner.tensor(images), targets.to(self.runner.device, non_blocking=True)

    def update(self, batch: tuple[Tensor, Tensor], lr: float, decay: float = 0.0) -> Tensor:
        """One update in training mode by mean cross entropy; `decay` is the moving average's.

        Returns (loss, accuracy) before the update, float32 (2,).
        """
        self.runner.model.train()
        for group in self.native.param_groups:
            group["lr"] = lr
        self.native.zero_grad()
        images, labels = batch
        with self._precision():
            logits = self.function(images)  # (N, classes)
        wide = logits.float() if self.objective.precision != "fp32" else logits
        loss = F.cross_entropy(wide, labels, label_smoothing=self.objective.label_smoothing)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._apply()
        if self.average:
            get_ema_multi_avg_fn(decay)(list(self.average.values()), self._averaged, None)  # type: ignore[no-untyped-call]
        self.steps += 1
        return torch.stack([loss.detach(), (wide.detach().argmax(1) == labels).to(loss.dtype).mean()])

    def seed(self, value: int) -> None:
        """Seed PyTorch's generator, of which dropout masks are drawn."""
        torch.manual_seed(value)

    def fetch(self, found: Sequence[Tensor]) -> Array:
        """What updates returned, float64 (len(found), 2), the mean over all processes; waits for the device."""
        if not found:
            return np.zeros((0, 2))
        return mean_over_processes(torch.stack(list(found))).double().cpu().numpy()

    def step(self, x: Array, labels: Array, lr: float) -> float:
        """One update from x (N, C, H, W) and labels int32 (N,); the loss before it."""
        return float(self.update(self.prepare(x, labels), lr)[0])

    def predict(self, x: Array) -> Array:
        """Logits (N, classes) in inference mode, float32, by the averaged weights where there are any."""
        model = unwrap(self.runner.model).eval()
        with torch.inference_mode(), self._precision():
            logits = torch.func.functional_call(model, dict(self.average), self.runner.tensor(x))
        return to_numpy(logits.float())

    def read_state(self) -> OptimizerState:
        """Copies of all that the optimizer remembers; zeros where no step has been taken."""
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
        """Put it back."""
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
        return torch.autocast(self.runner.device.type, AUTOCAST[self.objective.precision], enabled=mixed)

    def _apply(self) -> None:
        """The optimizer's update, after the gradients' true size is known."""
        if self.objective.clip_norm is not None:
            self.scaler.unscale_(self.native)
            clip_grad_norm_(self.names.values(), self.objective.clip_norm)
        self.scaler.step(self.native)
        self.scaler.update()

    def _count(self, *_: Any) -> None:
        """Count a step of the optimizer; the scaler leaves out those whose gradients overflowed."""
        self.applied += 1

    def _read_scale(self) -> LossScale | None:
        if not self.scaler.is_enabled():
            return None
        state = self.scaler.state_dict()
        return LossScale(float(state["scale"]), int(state["_growth_tracker"]))
