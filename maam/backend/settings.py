"""How backends describe the settings of layers: a table of fields for each kind, read and written in one way.

Values are in PyTorch's meaning, so that shared code can compare them. Padding is resolved to the rows and columns on
each side, for the sizes that the layer sees.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from maam.backend.adapter import Setting

Shapes = Sequence[tuple[int, ...]]
_DIMENSION = re.compile("([123])d(?![a-z])")
"""The dimension in the name of a class."""


class InexpressibleError(ValueError):
    """A setting that the layer of a framework cannot have. The message says why."""


class Sizes(tuple[int, ...]):
    """A tuple that is written as one, also if its elements are equal.

    Attributes:
        scale: the factor that gave these sizes; None if they were given.
    """

    scale: Any = None

    def __repr__(self) -> str:
        return f"({', '.join(map(str, self))}{',' if len(self) == 1 else ''})"


def _same(value: Any, _module: Any, _inputs: Shapes) -> Any:
    return value


@dataclass(frozen=True)
class Field:
    """A setting of a kind of layer.

    Attributes:
        name: PyTorch's name of the argument.
        read: returns the framework's own value from a layer.
        default: the framework's own default; the argument is left out if it has this value.
        argument: the framework's name of the argument; empty if it is `name`.
        to_value: converts the own value to PyTorch's meaning, for a layer and the shapes of its inputs.
        to_own: converts a value in PyTorch's meaning to arguments of the framework; it raises InexpressibleError if
            there are none.
        describe: returns the text of the setting; None writes `argument=value`.
        positional: whether the argument follows the leading ones without its name.
        to_keep: returns the arguments of a layer whose value stays; None writes the value that it has without inputs.
    """

    name: str
    read: Callable[[Any], Any]
    default: Any = None
    argument: str = ""
    to_value: Callable[[Any, Any, Shapes], Any] = _same
    to_own: Callable[[Any, Any], dict[str, Any]] | None = None
    describe: Callable[[Any], str] | None = None
    positional: bool = False
    to_keep: Callable[[Any], dict[str, Any]] | None = None

    def setting(self, module: Any, inputs: Shapes) -> Setting:
        """Return the setting of a layer."""
        own = self.read(module)
        text = self.describe(module) if self.describe else f"{self.argument or self.name}={shown(own)}"
        return Setting(self.to_value(own, module, inputs), text)

    def arguments(self, module: Any, value: Any) -> dict[str, Any]:
        """Return the arguments of the framework for a value in PyTorch's meaning."""
        if self.to_own is not None:
            return self.to_own(value, module)
        return {} if _equal(value, self.default) else {self.argument or self.name: value}


@dataclass(frozen=True)
class Description:
    """The fields of a kind of layer and the arguments that come before them in an expression.

    Attributes:
        fields: the fields.
        leading: returns the positional arguments of a layer, such as its channels.
        extra: returns further arguments, such as `has_bias`.
    """

    fields: tuple[Field, ...]
    leading: Callable[[Any], tuple[Any, ...]] = lambda _module: ()
    extra: Callable[[Any], dict[str, Any]] = lambda _module: {}

    def read(self, module: Any, inputs: Shapes) -> dict[str, Setting]:
        """Return all settings of a layer."""
        return {field.name: field.setting(module, inputs) for field in self.fields}

    def write(self, constructor: str, module: Any, values: Mapping[str, Any]) -> str:
        """Return the expression that builds the layer with other values of some settings."""
        parts = [shown(value) for value in self.leading(module)]
        options: dict[str, Any] = {}
        for field in self.fields:
            if field.to_keep is not None and field.name not in values:
                options |= field.to_keep(module)
                continue
            value = values.get(field.name, field.setting(module, ()).value)
            if field.positional:
                parts.append(shown(value))
            else:
                options |= field.arguments(module, value)
        options |= self.extra(module)
        return f"{constructor}({', '.join([*parts, *(f'{name}={shown(value)}' for name, value in options.items())])})"


def chain(container: str, layers: Sequence[str]) -> str:
    """Return the expression of layers that run one after the other; a single one needs no container."""
    return layers[0] if len(layers) == 1 else f"{container}({', '.join(layers)})"


def flat_sides(sides: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Return padding as layers that only pad take it: the last axis first."""
    return tuple(side for pair in reversed(sides) for side in pair)


def resize_field(to_own: Callable[[Any, Any], dict[str, Any]]) -> Field:
    """Return the field of the size of a resized map, which layers take as a size or as a factor."""

    def kept(layer: Any) -> dict[str, Any]:
        names = ("size", "scale_factor", "recompute_scale_factor")
        given = {name: own for name in names if (own := getattr(layer, name, None)) is not None}
        return given | {"size": Sizes(layer.size)} if isinstance(layer.size, (tuple, list)) else given

    def text(layer: Any) -> str:
        return ", ".join(f"{name}={shown(own)}" for name, own in kept(layer).items())

    return Field("size", lambda layer: layer.size, to_value=_resized, to_own=to_own, describe=text, to_keep=kept)


def _resized(size: Any, layer: Any, inputs: Shapes) -> Any:
    """Return the size for the shape of the input; what was given if that is unknown."""
    scale = layer.scale_factor
    if not inputs:
        return size, scale
    given = inputs[0][2:]
    if size is not None:
        return Sizes(per_axis(size, len(given)))
    scales = scale if isinstance(scale, (tuple, list)) else (scale,) * len(given)
    found = Sizes(int(side * factor) for side, factor in zip(given, scales, strict=True))
    found.scale = scale
    return found


def shown(value: Any) -> str:
    """Return a value as an expression; equal elements of a tuple are written once, and floats without noise."""
    if type(value) in (tuple, list):  # not Sizes
        if value and all(isinstance(v, (int, np.integer)) and v == value[0] for v in value):
            return shown(value[0])
        return f"({', '.join(map(shown, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, (float, np.floating)):
        return repr(float(f"{float(value):.7g}"))
    if isinstance(value, np.integer):
        return str(int(value))
    return repr(value).replace("'", '"') if isinstance(value, str) else repr(value)


def spatial_axes(layer: Any) -> int:
    """Return the number of spatial axes of a layer, from the name of its class or of a base, such as Conv2dTranspose.

    Example:
        >>> class Conv1d: ...
        >>> class Block3(Conv1d): ...
        >>> spatial_axes(Block3()), spatial_axes("a layer without a number")
        (1, 2)
    """
    names = (_DIMENSION.search(base.__name__) for base in type(layer).__mro__)
    return next((int(found[1]) for found in names if found), 2)


def spread(value: Any, layer: Any, _inputs: Shapes) -> tuple[int, ...]:
    """Return a value for each spatial axis of a layer."""
    return per_axis(value, spatial_axes(layer))


def sizes_field(name: str, default: Any) -> Field:
    """Return the field of a setting that has a value for each spatial axis."""
    return Field(name, attrgetter(name), default, to_value=spread)


def output_sizes(value: Any, layer: Any, inputs: Shapes) -> Any:
    """Return the output size of adaptive pooling for each axis; None, in MindSpore -1 too, is the size of the input."""
    count = spatial_axes(layer)
    own = tuple(value) if isinstance(value, (tuple, list)) else (value,) * count
    return tuple(inputs[0][i - count] if v in (None, -1) and inputs else v for i, v in enumerate(own))


def per_axis(value: Any, axes: int) -> tuple[int, ...]:
    """Return one integer for each spatial axis: the last ones of a longer sequence."""
    if isinstance(value, (tuple, list)):
        return tuple(int(v) for v in (value if len(value) > 1 else value * axes))[-axes:]
    return (int(value),) * axes


def same_padding(
    sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """Return the rows and columns that TensorFlow's and MindSpore's "same" adds before and after each axis.

    Example:
        >>> from maam.backend.settings import same_padding
        >>> same_padding((8, 7), (3, 3), (2, 2), (1, 1))
        ((0, 1), (1, 1))
    """
    found = []
    for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
        found.append((total // 2, total - total // 2))
    return tuple(found)


def axis_from_end(axis: int, inputs: Shapes) -> int:
    """Return an axis counted from the end if the shape of the input is known."""
    return axis - len(inputs[0]) if axis >= 0 and inputs else axis


def _equal(a: Any, b: Any) -> bool:
    """Return whether two values are equal; an integer equals a tuple of equal integers."""
    return bool(shown(a) == shown(b)) and isinstance(a, bool) == isinstance(b, bool)


def settings_differ(a: Any, b: Any) -> bool:
    """Return whether two values in PyTorch's meaning differ; floats may differ by their float32 rounding.

    Example:
        >>> from maam.backend.settings import settings_differ
        >>> settings_differ(0.1, 1 - 0.9), settings_differ(1e-3, 1e-5)
        (False, True)
    """
    if isinstance(a, (int, float)) and isinstance(b, (int, float)) and not isinstance(a, bool):
        return abs(a - b) > 1e-6 * max(abs(a), abs(b))
    return bool(a != b)
