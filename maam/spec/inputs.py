"""The rule for the inputs that a spec accepts: a few integers, which are cheap to check in every call."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from maam.errors import ShapeError
from maam.spec.containers import Model
from maam.spec.fields import Shape
from maam.spec.node import Node
from maam.spec.primitives import BatchNorm2d

_MAX_MINIMUM = 512
_MAX_STATISTICS = 4
_LAYER_SIZE = 32
_FACTOR = 1024
"""A spec that accepts a size and this multiple of it accepts all sizes in between."""


class InputRule(NamedTuple):
    """The inputs that a spec accepts.

    The rule accepts all inputs that the layers accept. If channels and size depend on each other (flatten, then
    linear), it also accepts others, and the layers raise the error.

    Attributes:
        rank: the number of dimensions with batch, 4 or 2; None for both.
        channels: the number of channels or features; None for any.
        minimum: the smallest height and width.
        size: height and width, if only one size is accepted.

    Example:
        >>> from maam import spec
        >>> spec.input_rule(spec.preset("maam_cifar10")).accepts((8, 3, 32, 32))
        True
    """

    rank: int | None
    channels: int | None
    minimum: int
    size: tuple[int, int] | None

    def accepts(self, shape: Shape) -> bool:
        """Return whether a batch of this shape, (N, C, H, W) or (N, features), is accepted."""
        if not self._has_rank(shape) or (self.channels is not None and shape[1] != self.channels):
            return False
        if len(shape) != 4:
            return True
        if self.size is not None:
            return shape[2] == self.size[0] and shape[3] == self.size[1]
        return shape[2] >= self.minimum and shape[3] >= self.minimum

    def check(self, shape: Shape, dtype: str = "float32", parameter_dtype: str | None = None) -> None:
        """Check the shape and the dtype of a batch.

        Args:
            shape: (N, C, H, W) or (N, features).
            dtype: the name of the input's dtype, such as "float32".
            parameter_dtype: the dtype of the parameters; None (mixed precision, or no parameters) for any.

        Raises:
            ShapeError: the shape is not accepted, or the dtype is not floating point or not that of the parameters.
        """
        expected = self.describe()
        if not self._has_rank(shape):
            raise ShapeError(f"expected an input {expected}, got {len(shape)} dimensions: {tuple(shape)}")
        if not self.accepts(shape):
            raise ShapeError(f"expected an input {expected}, got {tuple(shape)}{self._advice(shape)}")
        if "float" not in dtype:
            raise ShapeError(
                f"expected a floating-point input {expected}, got {dtype}; convert it and scale images to [0, 1]"
            )
        if parameter_dtype not in (None, dtype):
            half = parameter_dtype in ("float16", "bfloat16")
            raise ShapeError(
                f"expected an input of dtype {parameter_dtype}, the dtype of the parameters, got {dtype}; "
                "convert the input or the model"
                + ("; for a file in half precision use load(path, dtype=...)" if half else "")
            )

    def describe(self) -> str:
        """Return the rule as text: "(N, 3, 32, 32)" or "(N, 3, H, W) with H, W >= 4"."""
        channels = "C" if self.channels is None else self.channels
        if self.rank == 2:
            return f"(N, {channels})"
        if self.rank is None:
            return f"(N, {channels}) or (N, {channels}, H, W)"
        if self.size is not None:
            return f"(N, {channels}, {self.size[0]}, {self.size[1]})"
        least = f" with H, W >= {self.minimum}" if self.minimum > 1 else ""
        return f"(N, {channels}, H, W){least}"

    def _advice(self, shape: Shape) -> str:
        """Return the option of a preset that accepts square images of another size."""
        if len(shape) != 4 or self.size is None or shape[1] != self.channels or shape[2] != shape[3]:
            return ""
        return f"; a preset takes such images if it is built with image_size={shape[2]}"

    def _has_rank(self, shape: Shape) -> bool:
        return len(shape) in (2, 4) if self.rank is None else len(shape) == self.rank


def input_rule(spec: Node) -> InputRule:
    """Return the inputs that a spec accepts.

    For a `Model` with a single valid size (flatten, then linear), `size` is set.

    Example:
        >>> from maam import spec
        >>> spec.input_rule(spec.preset("maam_imagenet")).describe()
        '(N, 3, H, W) with H, W >= 31'
    """
    channels = _channels(spec)
    if isinstance(spec, Model):
        channels, height, width = spec.input_shape
        if not _fits(spec, (channels, _FACTOR * height, _FACTOR * width)):
            return InputRule(4, channels, 1, (height, width))
    probe = channels or 1
    takes_vectors = not isinstance(spec, Model) and _fits(spec, (probe,))
    sides = (side for side in range(1, _MAX_MINIMUM + 1) if _fits(spec, (probe, side, side)))
    if (least := next(sides, None)) is None:
        return InputRule(2, channels, 1, None) if takes_vectors else InputRule(None, None, 1, None)
    rank = None if takes_vectors else 4
    if not _fits(spec, (probe, _FACTOR * least, _FACTOR * least)):
        return InputRule(rank, None, 1, None)
    return InputRule(rank, channels, least, None)


def example_shape(spec: Node, size: int | None = None) -> Shape:
    """Return the shape of a sample that a spec accepts: (C, H, W), or (features,) for a layer on vectors.

    Args:
        spec: a spec.
        size: height and width. Default: those of the model, or 32 for a layer.

    Raises:
        ShapeError: the model does not accept images of this size.
    """
    if isinstance(spec, Model) and size is None:
        return spec.input_shape
    rule = input_rule(spec)
    if isinstance(spec, Model) and size is not None:
        shape = (spec.input_shape[0], size, size)
        rule.check((1, *shape))
        return shape
    channels = rule.channels or 3
    return (channels,) if rule.rank == 2 else (channels, size or _LAYER_SIZE, size or _LAYER_SIZE)


def check_training_batch(spec: Node, shape: Shape, is_training: Callable[[str], bool] = lambda path: True) -> None:
    """Check that each batch norm in training mode gets more than one value for each channel.

    PyTorch raises a similar error; MindSpore would set the running variance to NaN.

    Args:
        spec: a spec.
        shape: the shape of the batch, (N, C, H, W).
        is_training: returns whether the layer at a path is in training mode.

    Raises:
        ShapeError: N is 1 and the input of a batch norm is a 1x1 map; the error names the layer.
    """
    if shape[0] != 1 or len(shape) != 4:
        return
    for path, node, given, _ in spec.summary(shape[1:]):
        if isinstance(node, BatchNorm2d) and given[1:] == (1, 1) and is_training(path):
            sentence = "expected more than 1 value per channel when training, got input size"
            raise ShapeError(f"{sentence} {(1, *given)}; use a larger batch or larger maps", path)


def _channels(spec: Node) -> int | None:
    """Return the number of input channels, or None for any.

    It is the number that the first layer with a fixed number expects, divided by k if this layer follows the
    concatenation of k statistics (a gate). A layer after pooling over the channels does not determine the number.
    """
    first = spec.in_channels_expected
    if first is None or isinstance(spec, Model):
        return first
    for asked in dict.fromkeys(node.in_channels_expected for _, node in spec.walk()):
        for parts in range(1, _MAX_STATISTICS + 1):
            if asked is not None and asked % parts == 0 and _takes(spec, asked // parts):
                return None if _takes(spec, asked // parts + 1) else asked // parts
    return first


def _takes(spec: Node, channels: int) -> bool:
    return _fits(spec, (channels,)) or _fits(spec, (channels, _MAX_MINIMUM, _MAX_MINIMUM))


def _fits(spec: Node, shape: Shape) -> bool:
    try:
        spec.output_shape(shape)
    except ShapeError:
        return False
    return True
