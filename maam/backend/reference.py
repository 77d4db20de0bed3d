"""The NumPy reference as a backend: it builds, loads and runs models in float64, and does not train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from maam.backend.optimizer import Optimizer
from maam.backend.protocol import Objective
from maam.backend.registry import find_entry, trainable_names
from maam.errors import TrainingError
from maam.reference.model import ReferenceModel, build, load, save_weights
from maam.spec import Node
from maam.weights.exchange import check_model

Array = np.ndarray[Any, Any]


class Runner:
    """A runner of a reference model, with the interface of other backends' runners; its outputs are float64."""

    def __init__(self, model: ReferenceModel) -> None:
        self.name, self.capabilities = next(iter(find_entry("reference").modes.items()))
        self.model = model

    @property
    def spec(self) -> Node:
        """The model's spec."""
        return self.model.spec

    def read_arrays(self) -> dict[str, Array]:
        """Return copies of all parameters and running statistics by canonical name."""
        return {name: array.copy() for name, array in self.model.arrays.items()}

    def write_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Copy arrays into the model."""
        self.model.arrays.update({name: np.array(array, np.float64) for name, array in arrays.items()})

    @contextmanager
    def preserve_state(self) -> Iterator[None]:
        """Restore the model's arrays on leaving the context."""
        arrays = self.read_arrays()
        try:
            yield
        finally:
            self.write_arrays(arrays)

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return the output for x (N, C, H, W), float64; train mode updates the running statistics."""
        return self.model(x, training=training)

    def forward_layer(self, path: str, x: Array, training: bool = False) -> Array:
        """Return the output of the layer at a canonical path for its input x, float64."""
        return self.model.run(path, np.asarray(x, np.float64), training)

    def gradients(self, x: Array, cotangent: Array) -> NoReturn:
        """Raise TrainingError: the reference computes no gradients."""
        raise TrainingError(f"the NumPy reference computes no gradients; use {_others()}")

    def trainer(self, optimizer: Optimizer, objective: Objective | None = None) -> NoReturn:
        """Raise TrainingError: the reference does not train."""
        raise TrainingError(f"the NumPy reference does not train; use {_others()}")

    def clone_with(self, spec: Node, arrays: Mapping[str, Array], dtype: str = "float64") -> Runner:
        """Return a runner with a new model; its arrays are rounded to `dtype`, the arithmetic stays float64."""
        return Runner(ReferenceModel(spec, {name: np.asarray(array).astype(dtype) for name, array in arrays.items()}))


def _others() -> str:
    """Return the argument that names a backend that trains, for messages."""
    return f"framework={' or '.join(map(repr, trainable_names()))}"


class ReferenceBackend:
    """The NumPy backend; see `maam.backend.protocol`."""

    name = "reference"

    def build(self, spec: Node | str, *, seed: int | None = None) -> ReferenceModel:
        """Return a reference model of a spec or preset."""
        return build(spec, seed=seed)

    def load(self, path: str | Path) -> ReferenceModel:
        """Return the reference model that a weights file describes."""
        return load(path)

    def save_weights(self, model: ReferenceModel, path: str | Path) -> None:
        """Write a model's spec and arrays to a weights file."""
        save_weights(model, path)

    def make_runner(self, model: ReferenceModel, mode: str | None = None) -> Runner:
        """Return a runner of a model."""
        check_model(model, ReferenceModel, "maam.reference.ReferenceModel", "make_runner")
        return Runner(model)


BACKEND = ReferenceBackend()
