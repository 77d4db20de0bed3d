"""What a room offers to code that does not know which framework it drives: NumPy arrays in and out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from maam.backend.optimizer import Optimizer
from maam.spec import Node

Array = np.ndarray[Any, Any]
Record = dict[str, Any]
"""What one line of the log holds, by name."""


class Gradients(NamedTuple):
    """Gradients with respect to the input and to each parameter, by canonical name."""

    input: Array
    parameters: dict[str, Array]


class LossScale(NamedTuple):
    """A dynamic loss scale, and the steps since it last changed or overflowed."""

    scale: float
    growth_tracker: int


@dataclass(frozen=True)
class OptimizerState:
    """All that an optimizer remembers.

    Attributes:
        step: updates made.
        moments: for each kind of moment (`Optimizer.moments`) an array for each parameter by name.
        average: the moving averages of parameters and running statistics by name; empty without an average.
        loss_scale: None without loss scaling.
        skipped: of these updates, those that loss scaling left out: the optimizer has counted the others.
    """

    step: int
    moments: dict[str, dict[str, Array]]
    average: dict[str, Array] = field(default_factory=dict)
    loss_scale: LossScale | None = None
    skipped: int = 0


@dataclass(frozen=True)
class Objective:
    """What a step minimises and how its gradients are treated.

    Attributes:
        label_smoothing: share of the target that is spread evenly over all classes.
        clip_norm: greatest norm of all gradients together; None for no limit.
        average: whether a moving average of the weights is kept.
        precision: "fp32", "bf16" or "fp16" (whose loss is scaled).
    """

    label_smoothing: float = 0.0
    clip_norm: float | None = None
    average: bool = False
    precision: str = "fp32"


class Trainer(Protocol):
    """A model with an optimizer."""

    optimizer: Optimizer

    def prepare(self, images: Array, labels: Array) -> Any:
        """A batch on the device, without waiting for the copy; images (N, C, H, W), labels int32 (N,)."""

    def update(self, batch: Any, lr: float, decay: float = 0.0) -> Any:
        """One update in training mode by mean cross entropy, from a prepared batch.

        `decay` is that of the moving average in this step. Returns (loss, accuracy) before the update, on the device.
        """

    def seed(self, value: int) -> None:
        """Seed the framework's generator of dropout masks, where a run can do so from step to step."""

    def fetch(self, found: Sequence[Any]) -> Array:
        """What updates returned, float64 (len(found), 2); waits for the device."""

    def step(self, x: Array, labels: Array, lr: float) -> float:
        """`prepare`, `update` and `fetch` in one."""

    def predict(self, x: Array) -> Array:
        """Logits in inference mode, float32, in the precision of training, by the averaged weights if there are."""

    def read_state(self) -> OptimizerState:
        """Copies of all that the optimizer remembers."""

    def write_state(self, state: OptimizerState) -> None:
        """Put it back."""


class Runner(Protocol):
    """A model of one framework in one mode."""

    name: str
    model: Any

    @property
    def spec(self) -> Node:
        """The model's spec."""

    def read_arrays(self) -> dict[str, Array]:
        """Copies of all parameters and running statistics by canonical name."""

    def write_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Put arrays into the model, cast to its dtypes."""

    def kept(self) -> AbstractContextManager[None]:
        """Leave the model with the arrays and modes, layer by layer, that it has now."""

    def forward(self, x: Array, training: bool = False) -> Array:
        """The output for x (N, C, H, W); in training mode the running statistics move."""

    def forward_layer(self, path: str, x: Array, training: bool = False) -> Array:
        """The output of the layer at a canonical path for its own input x."""

    def gradients(self, x: Array, cotangent: Array) -> Gradients:
        """Gradients of sum(output * cotangent) in training mode."""

    def trainer(self, optimizer: Optimizer, objective: Objective = ...) -> Trainer:
        """A trainer of this model with a fresh optimizer."""

    def sibling(self, spec: Node, arrays: Mapping[str, Array], dtype: str = "float32") -> Runner:
        """A runner of the same framework and mode with a new model, its arrays cast to `dtype`."""


class Observer:
    """Who is told how a run goes; a subclass has the methods that it needs, the others do nothing."""

    def note(self, text: str) -> None:
        """Something that people should know before the run starts."""

    def start(self, step: int, steps: int) -> None:
        """The run goes on from `step` of `steps`."""

    def steps(self, record: Record) -> None:
        """Some steps were made; `record` is what the log has of them."""

    def epoch(self, record: Record) -> None:
        """An epoch is over and was evaluated."""


class World(Protocol):
    """One process's view of all of them; each room makes it with its framework's own engine."""

    rank: int
    size: int

    def barrier(self) -> None:
        """Wait until all processes are here."""

    def gather(self, array: Array) -> Array:
        """The arrays (N, ...) of all processes, whose N may differ, one after the other along the first axis."""


class Alone:
    """The world of a single process."""

    rank, size = 0, 1

    def barrier(self) -> None:
        """Go on."""

    def gather(self, array: Array) -> Array:
        """The array itself."""
        return array


def share_statistics(world: World, runner: Runner, trainer: Trainer) -> None:
    """Give all processes the first one's running statistics: each has seen its share of the batches alone."""
    names = [p.name for p in runner.spec.parameters() if not p.trainable]
    if world.size == 1 or not names:
        return
    runner.write_arrays(_of_the_first(world, runner.read_arrays(), names))
    state = trainer.read_state()
    if state.average:
        shared = _of_the_first(world, state.average, names)
        trainer.write_state(replace(state, average=state.average | shared))


def _of_the_first(world: World, arrays: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """The first process's arrays of these names, in all; on the way they are one vector."""
    own = np.concatenate([arrays[name].ravel() for name in names])
    first = world.gather(own)[: own.size]
    ends = np.cumsum([arrays[name].size for name in names])
    parts = np.split(first, ends[:-1])
    return {name: part.reshape(arrays[name].shape) for name, part in zip(names, parts, strict=True)}
