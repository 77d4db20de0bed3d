"""The interface to models that maam did not build, which backends implement for ports, and the kinds of layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from maam.errors import PortingError

Array = np.ndarray[Any, Any]
Inputs = tuple[Array, ...]
"""The batches (N, ...) that a model or a layer takes, one for each of its arguments."""

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
    "RMSNorm": "rms norm",
    "LocalResponseNorm": "local response normalization",
    "LRN": "local response normalization",
    "Embedding": "embedding",
    "HSwish": "hardswish",
    "HSigmoid": "hardsigmoid",
    "Dropout1d": "dropout of channels",
    "Dropout2d": "dropout of channels",
    "Dropout3d": "dropout of channels",
    "MaxPool1d": "max pooling",
    "MaxPool2d": "max pooling",
    "MaxPool3d": "max pooling",
    "AvgPool1d": "average pooling",
    "AvgPool2d": "average pooling",
    "AvgPool3d": "average pooling",
    "AdaptiveAvgPool1d": "adaptive average pooling",
    "AdaptiveAvgPool2d": "adaptive average pooling",
    "AdaptiveAvgPool3d": "adaptive average pooling",
    "AdaptiveMaxPool1d": "adaptive max pooling",
    "AdaptiveMaxPool2d": "adaptive max pooling",
    "AdaptiveMaxPool3d": "adaptive max pooling",
    "MultiheadAttention": "attention",
    "LeakyReLU": "leaky relu",
    "LogSoftmax": "log softmax",
}
"""The kinds of layers by class name, for both frameworks. Other classes have their name in lower case as kind."""

_CONTAINERS = ("Module", "Cell", "Sequential", "SequentialCell", "ModuleList", "CellList", "ModuleDict", "CellDict")
_NEUTRAL = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
"""The value of an array that changes nothing, by PyTorch's local name; a weight is one of a normalization."""

OWN = "custom layer"
"""The kind of a class that does not belong to a framework."""


class Slot(NamedTuple):
    """An array of a layer.

    Attributes:
        name: the framework's full name.
        shape: the shape.
        trainable: whether the optimizer updates it.
        neutral: whether its values change nothing: a bias of zeros, a weight of ones in a normalization.
        tied: the full name of the same array in an earlier layer; empty if no earlier layer holds it.
    """

    name: str
    shape: tuple[int, ...]
    trainable: bool
    neutral: bool = False
    tied: str = ""


class Setting(NamedTuple):
    """A setting of a layer.

    Attributes:
        value: its value in PyTorch's meaning. Layers whose values are equal behave equally.
        text: the setting as the framework writes it, such as "momentum=0.9".
    """

    value: Any
    text: str


@dataclass(frozen=True)
class Layer:
    """A layer of a model: a module that has no children or that has its own arrays.

    Attributes:
        name: the path in the model, without the names of wrappers; empty for the model itself.
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
        output: the output, or the first tensor of several; None if there is none.
        options: the keyword arguments, for `ModelAdapter.run_layer`.
    """

    name: str
    inputs: Inputs | None
    output: Array | None
    options: Mapping[str, Any] = {}  # never changed


class ModelAdapter(Protocol):
    """The interface to a model that maam did not build. Names of arrays are the framework's full names.

    Attributes:
        framework: the name of the backend.
        remarks: what the report must say about the model, such as "weight_norm is computed once".
        mixed: how the framework changes the precision of code between layers; empty if it does not.
        fixed: why its layers cannot be observed and its mode cannot change ("a traced module"); empty if they can.

    Example:
        >>> import numpy as np, torch
        >>> from maam.backend import load_backend
        >>> adapter = load_backend("torch").adapt(torch.nn.Linear(2, 1))
        >>> adapter.write({"weight": np.ones((1, 2), np.float32), "bias": np.zeros(1, np.float32)})
        >>> adapter.forward((np.ones((3, 2), np.float32),)).tolist()
        [[2.0], [2.0], [2.0]]
    """

    framework: str
    remarks: tuple[str, ...]
    mixed: str
    fixed: str

    def layers(self) -> list[Layer]:
        """Return all layers in the order of registration."""

    def settings(self, name: str, inputs: Sequence[tuple[int, ...]]) -> dict[str, Setting]:
        """Return the settings of the layer `name`, by PyTorch's names of arguments.

        Args:
            name: the layer's path.
            inputs: the shapes of its inputs; empty if unknown. Padding that follows from the size needs them.
        """

    def write_layer(self, name: str, values: Mapping[str, Any], inputs: Sequence[tuple[int, ...]] = ()) -> str:
        """Return the expression that builds the layer `name` with other values of some settings; "" if unknown.

        Args:
            name: the layer's path.
            values: the values, in PyTorch's meaning.
            inputs: as in `settings`.

        Raises:
            maam.backend.settings.InexpressibleError: the framework has no such layer.
        """

    def build(self, expression: str) -> ModelAdapter:
        """Return the adapter of a new layer from the expression of `write_layer`."""

    def read(self, names: Iterable[str] | None = None) -> dict[str, Array]:
        """Return copies of the arrays of these names, or of all layers."""

    def write(self, arrays: Mapping[str, Array]) -> None:
        """Copy arrays into the model, cast to its dtypes."""

    def commit(self) -> None:
        """Copy the arrays into the user's model, if the adapter works on a copy of it.

        Raises:
            PortingError: the user's model cannot take them.
        """

    def forward(self, inputs: Inputs, training: bool = False) -> Array:
        """Return the output; train mode updates the running statistics, and dropout is off."""

    def record(
        self, inputs: Inputs, training: bool = False, replaced: Mapping[tuple[str, int], Array] | None = None
    ) -> tuple[Array, list[Call]]:
        """Return the output, and the calls of all layers in the order of execution.

        Args:
            inputs: the inputs of the model.
            training: whether the model runs in train mode.
            replaced: outputs for the model to go on with, by the name of a layer and the index of its call. The calls
                keep the layers' own outputs.
        """

    def run_layer(
        self, name: str, inputs: Inputs, training: bool = False, options: Mapping[str, Any] | None = None
    ) -> Array:
        """Return the output of the layer `name`, or the first tensor of several, for inputs of this layer."""

    def gradients(self, inputs: Inputs, cotangent: Array) -> dict[str, Array]:
        """Return the gradients of sum(output * cotangent) in train mode, for all trainable arrays."""

    def train(self, batches: Sequence[tuple[Inputs, Array]], lr: float, momentum: float, weight_decay: float) -> None:
        """Take a step of SGD for each (inputs, target).

        The loss is mean cross entropy for integer targets, and mean(output * target) for others.
        """

    def double(self) -> ModelAdapter | None:
        """Return an adapter of a copy in float64; None if the model or the framework does not support it."""

    def save(self, path: Path, note: Mapping[str, str]) -> str:
        """Write the arrays under the framework's own names to a file that its users load.

        Args:
            path: the file; its suffix, one of the backend's checkpoint suffixes or .safetensors, selects the format.
            note: texts to store in the file.

        Returns:
            The code that loads the file.
        """


class Recorder:
    """The calls of layers in a forward pass, in the order of execution; hooks of a framework add them.

    Args:
        tensor: the framework's class of tensors.
        to_numpy: copies a tensor into an array.
        replaced: arrays that replace the output of a call, by the name of the layer and the number of its call.
    """

    def __init__(
        self, tensor: type, to_numpy: Callable[[Any], Array], replaced: Mapping[tuple[str, int], Array] | None
    ) -> None:
        self.calls: list[Call] = []
        self._tensor, self._to_numpy, self._replaced = tensor, to_numpy, replaced or {}
        self._counts: Counter[str] = Counter()

    def copy_inputs(self, inputs: Iterable[Any], options: Mapping[str, Any]) -> Inputs | None:
        """Return copies of the inputs of a call; None if they cannot be given again as arrays alone."""
        named = any(isinstance(value, self._tensor) for value in options.values())
        if named or not all(isinstance(x, self._tensor) for x in inputs):
            return None
        return tuple(self._to_numpy(x) for x in inputs)

    def add(self, name: str, inputs: Inputs | None, options: Mapping[str, Any], output: Any) -> Array | None:
        """Add a call of a layer; return the array that replaces the first tensor of its output, or None."""
        tensor = first_of(output, self._tensor)
        self.calls.append(Call(name, inputs, None if tensor is None else self._to_numpy(tensor), dict(options)))
        index = self._counts[name]
        self._counts[name] += 1
        return None if tensor is None else self._replaced.get((name, index))


def check_model(model: Any, base: type, name: str) -> None:
    """Raise `PortingError` unless a model is an object of the framework's class `base`, which is called `name`."""
    if isinstance(model, type) and issubclass(model, base):
        raise PortingError(f"expected a model, got the class {model.__name__}; pass an instance: {model.__name__}()")
    if not isinstance(model, base):
        raise PortingError(f"expected a {name}, got an object of type {type(model).__name__}")


def kind_of(cls: type, package: str) -> str:
    """Return the kind of a layer's class; `package` is the name of the framework's package."""
    names = [base.__name__.removesuffix("Ext") for base in cls.__mro__ if base.__module__.split(".")[0] == package]
    known = next((KINDS[name] for name in names if name in KINDS), "")
    first = next((name for name in names if not name.startswith("_")), "Module")
    if first in _CONTAINERS and is_dropout(cls):
        return "dropout of paths"
    return known or (OWN if first in _CONTAINERS else first.lower())


def is_neutral(kind: str, name: str, array: Array) -> bool:
    """Return whether an array with PyTorch's local name changes nothing in a layer of this kind."""
    if name not in _NEUTRAL or (name != "bias" and not kind.endswith(" norm")):
        return False
    return bool((array == _NEUTRAL[name]).all())


def neutral_array(name: str, shape: tuple[int, ...]) -> Array:
    """Return the array of this local name that changes nothing."""
    return np.full(shape, _NEUTRAL[name], np.float32)


def is_dropout(cls: type) -> bool:
    """Return whether a class is a kind of dropout (Dropout, DropPath, DropBlock, StochasticDepth), by its name."""
    return any(base.__name__.startswith(("Drop", "StochasticDepth")) for base in cls.__mro__)


def first_of(output: Any, kind: type) -> Any:
    """Return the first object of a class in the output of a layer; None if there is none.

    Args:
        output: the output, or a nested tuple or list of outputs.
        kind: the class, such as torch.Tensor.
    """
    if isinstance(output, kind):
        return output
    parts = output if isinstance(output, (tuple, list)) else ()
    return next((found for part in parts if (found := first_of(part, kind)) is not None), None)


def with_first(output: Any, kind: type, new: Any) -> Any:
    """Return the output of a layer with another object in the place of `first_of(output, kind)`."""
    if isinstance(output, kind):
        return new
    parts = list(output)
    index = next(index for index, part in enumerate(parts) if first_of(part, kind) is not None)
    parts[index] = with_first(parts[index], kind, new)
    named = hasattr(output, "_fields")  # a named tuple
    return type(output)(*parts) if named else type(output)(parts)
