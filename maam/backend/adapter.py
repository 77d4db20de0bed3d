"""The interface to models that maam did not build, which backends implement for ports, and the kinds of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

Array = np.ndarray[Any, Any]

KINDS = {
    "Conv1d": "convolution",
    "Conv2d": "convolution",
    "Conv3d": "convolution",
    "ConvTranspose1d": "transposed convolution",
    "ConvTranspose2d": "transposed convolution",
    "ConvTranspose3d": "transposed convolution",
    "Conv1dTranspose": "transposed convolution",
    "Conv2dTranspose": "transposed convolution",
    "Conv3dTranspose": "transposed convolution",
    "Linear": "linear",
    "Dense": "linear",
    "BatchNorm1d": "batch norm",
    "BatchNorm2d": "batch norm",
    "BatchNorm3d": "batch norm",
    "SyncBatchNorm": "batch norm",
    "GroupNorm": "group norm",
    "InstanceNorm1d": "instance norm",
    "InstanceNorm2d": "instance norm",
    "InstanceNorm3d": "instance norm",
    "LayerNorm": "layer norm",
    "Embedding": "embedding",
    "HSwish": "hardswish",
    "HSigmoid": "hardsigmoid",
}
"""The kinds of layers by class name, for both frameworks. Other classes have their name in lower case as kind."""

OWN = "custom layer"
"""The kind of a class that does not belong to a framework."""


class Slot(NamedTuple):
    """An array of a layer.

    Attributes:
        name: the framework's full name.
        shape: the shape.
        trainable: whether the optimizer updates it.
    """

    name: str
    shape: tuple[int, ...]
    trainable: bool


@dataclass(frozen=True)
class Layer:
    """A layer of a model: a module that has no children or that has its own arrays.

    Attributes:
        name: the path in the model; empty for the model itself.
        kind: the kind of layer, with the same name in both frameworks, such as "linear".
        slots: the layer's own arrays by PyTorch's local name (weight, bias, running_mean, ...).

    Example:
        >>> import torch
        >>> from maam.backend import load_backend
        >>> adapter = load_backend("torch").adapt(torch.nn.Sequential(torch.nn.Linear(4, 3)))
        >>> print(adapter.layers()[0])
        '0' (linear: weight 3x4, bias 3)
    """

    name: str
    kind: str
    slots: Mapping[str, Slot] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {'x'.join(map(str, slot.shape)) or '()'}" for name, slot in self.slots.items())
        return f"{self.name or 'the model itself'!r} ({self.kind}{': ' if shapes else ''}{shapes})"


class Call(NamedTuple):
    """One call of a layer in a forward pass.

    Attributes:
        name: the layer's path.
        inputs: the inputs; None if one is not a plain tensor.
        output: the output; None if it is not a plain tensor.
    """

    name: str
    inputs: tuple[Array, ...] | None
    output: Array | None


class ModelAdapter(Protocol):
    """The interface to a model that maam did not build. Names of arrays are the framework's full names.

    Attributes:
        framework: the name of the backend.

    Example:
        >>> import numpy as np, torch
        >>> from maam.backend import load_backend
        >>> adapter = load_backend("torch").adapt(torch.nn.Linear(2, 1))
        >>> adapter.write({"weight": np.ones((1, 2), np.float32), "bias": np.zeros(1, np.float32)})
        >>> adapter.forward(np.ones((3, 2), np.float32)).tolist()
        [[2.0], [2.0], [2.0]]
    """

    framework: str

    def layers(self) -> list[Layer]:
        """Return all layers in the order of registration."""

    def read(self) -> dict[str, Array]:
        """Return copies of the arrays of all layers."""

    def write(self, arrays: Mapping[str, Array]) -> None:
        """Copy arrays into the model, cast to its dtypes."""

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return the output for x; train mode updates the running statistics, and dropout is off."""

    def record(self, x: Array, training: bool = False) -> tuple[Array, list[Call]]:
        """Return the output for x, and the calls of all layers in the order of execution."""

    def run_layer(self, name: str, inputs: Sequence[Array], training: bool = False) -> Array:
        """Return the output of the layer `name` for the given inputs of this layer."""

    def gradients(self, x: Array, cotangent: Array) -> dict[str, Array]:
        """Return the gradients of sum(output * cotangent) in train mode, for all trainable arrays."""

    def train(self, batches: Sequence[tuple[Array, Array]], lr: float, momentum: float, weight_decay: float) -> None:
        """Take a step of SGD for each (x, target).

        The loss is mean cross entropy for integer targets, and mean(output * target) for others.
        """

    def double(self) -> ModelAdapter | None:
        """Return an adapter of a copy in float64; None if the model or the framework does not support it."""


def kind_of(cls: type, package: str) -> str:
    """Return the kind of a layer's class; `package` is the name of the framework's package."""
    for base in cls.__mro__:
        if base.__module__.split(".")[0] == package and base.__name__ in KINDS:
            return KINDS[base.__name__]
    return cls.__name__.lower() if cls.__module__.split(".")[0] == package else OWN


def is_dropout(cls: type) -> bool:
    """Return whether a class is a kind of dropout (Dropout, DropPath, DropBlock, StochasticDepth), by its name."""
    return any(base.__name__.startswith(("Drop", "StochasticDepth")) for base in cls.__mro__)
