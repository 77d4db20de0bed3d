"""What a room offers to code that does not know which framework it drives: NumPy arrays in and out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from maam.spec import Node
from maam.training.optimizer import Optimizer

Array = np.ndarray[Any, Any]


class Gradients(NamedTuple):
    """Gradients with respect to the input and to each parameter, by canonical name."""

    input: Array
    parameters: dict[str, Array]


class OptimizerState(NamedTuple):
    """Steps taken, and for each kind of moment (`Optimizer.moments`) an array for each parameter by name."""

    step: int
    moments: dict[str, dict[str, Array]]


class Trainer(Protocol):
    """A model with an optimizer."""

    optimizer: Optimizer

    def step(self, x: Array, labels: Array, lr: float) -> float:
        """One update in training mode by mean cross entropy; x (N, C, H, W), labels int32 (N,); the loss before it."""

    def read_state(self) -> OptimizerState:
        """Copies of the optimizer's moments."""

    def write_state(self, state: OptimizerState) -> None:
        """Put moments back."""


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

    def forward(self, x: Array, training: bool = False) -> Array:
        """The output for x (N, C, H, W); in training mode the running statistics move."""

    def forward_layer(self, path: str, x: Array, training: bool = False) -> Array:
        """The output of the layer at a canonical path for its own input x."""

    def gradients(self, x: Array, cotangent: Array) -> Gradients:
        """Gradients of sum(output * cotangent) in training mode."""

    def trainer(self, optimizer: Optimizer) -> Trainer:
        """A trainer of this model with a fresh optimizer."""

    def sibling(self, spec: Node, arrays: Mapping[str, Array], dtype: str = "float32") -> Runner:
        """A runner of the same framework and mode with a new model, its arrays cast to `dtype`."""
