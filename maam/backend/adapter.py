"""One of the two models of a port, driven by NumPy arrays: what each framework's room offers, and layers' kinds."""

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
"""What a layer is, by its class in either framework; other classes of a framework go by their name in lower case."""

OWN = "layer of your own"
"""The kind of a class that is no framework's."""


class Slot(NamedTuple):
    """An array of a layer: its full name in the framework, its shape, and whether it is trained."""

    name: str
    shape: tuple[int, ...]
    trainable: bool


@dataclass(frozen=True)
class Layer:
    """A module without children, or one that holds arrays itself.

    Attributes:
        name: its path in the model; empty for the model itself.
        kind: what it is, the same word for both frameworks.
        slots: its own arrays by PyTorch's local name (weight, bias, running_mean, ...).
    """

    name: str
    kind: str
    slots: Mapping[str, Slot] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {'x'.join(map(str, slot.shape)) or '()'}" for name, slot in self.slots.items())
        return f"{self.name or 'the whole'!r} ({self.kind}{': ' if shapes else ''}{shapes})"


class Call(NamedTuple):
    """A layer that ran: what went in and came out; None where that is not a plain tensor."""

    name: str
    inputs: tuple[Array, ...] | None
    output: Array | None


class ModelAdapter(Protocol):
    """A model of one framework. Arrays carry the framework's full names (`Slot.name`)."""

    framework: str

    def layers(self) -> list[Layer]:
        """All layers in the order in which they are registered."""

    def read(self) -> dict[str, Array]:
        """Copies of all arrays of all layers."""

    def write(self, arrays: Mapping[str, Array]) -> None:
        """Put arrays into the model, cast to its dtypes."""

    def forward(self, x: Array, training: bool = False) -> Array:
        """The output for x; in training mode the running statistics move, and dropout stands still."""

    def record(self, x: Array, training: bool = False) -> tuple[Array, list[Call]]:
        """The output for x and every layer that ran, in running order."""

    def run_layer(self, name: str, inputs: Sequence[Array], training: bool = False) -> Array:
        """The output of one layer for its own inputs."""

    def gradients(self, x: Array, cotangent: Array) -> dict[str, Array]:
        """Gradients of sum(output * cotangent) in training mode for every array that is trained."""

    def train(self, batches: Sequence[tuple[Array, Array]], lr: float, momentum: float, weight_decay: float) -> None:
        """A step of SGD for each (x, target): mean cross entropy for integers, else mean(output * target)."""

    def double(self) -> ModelAdapter | None:
        """A copy in float64; None where the model or the framework cannot."""


def kind_of(cls: type, package: str) -> str:
    """The kind of a layer's class; `package` is the framework's, whose classes count by their names."""
    for base in cls.__mro__:
        if base.__module__.split(".")[0] == package and base.__name__ in KINDS:
            return KINDS[base.__name__]
    return cls.__name__.lower() if cls.__module__.split(".")[0] == package else OWN


def is_dropout(cls: type) -> bool:
    """Whether a class drops at random (Dropout, DropPath, DropBlock), by its name."""
    return any(base.__name__.startswith(("Drop", "StochasticDepth")) for base in cls.__mro__)
