"""What a spec asks of its input, as a few integers that are cheap to compare in any framework."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from maam.errors import ShapeError
from maam.spec.containers import Model
from maam.spec.fields import Shape
from maam.spec.node import Node
from maam.spec.primitives import BatchNorm2d

_LARGEST_MINIMUM = 512
_MOST_STATISTICS = 4
_OF_LAYERS = 32
_FAR = 1024  # a spec that takes a size and this many times it takes any in between; strides hide smaller steps


class InputRule(NamedTuple):
    """The inputs that a spec takes: rank with batch, channels, least size, and a size if it is fixed.

    Rank None stands for 2 or 4; channels None for any number. A rule refuses nothing that a layer accepts; where
    channels and size depend on each other (flatten, then linear) it leaves the refusal to the layers.
    """

    rank: int | None
    channels: int | None
    minimum: int
    size: tuple[int, int] | None

    def accepts(self, shape: Shape) -> bool:
        """Whether a batch of `shape`, (N, C, H, W) or (N, features), can be given to the spec."""
        if not self._has_rank(shape) or (self.channels is not None and shape[1] != self.channels):
            return False
        if len(shape) != 4:
            return True
        if self.size is not None:
            return shape[2] == self.size[0] and shape[3] == self.size[1]
        return shape[2] >= self.minimum and shape[3] >= self.minimum

    def check(self, shape: Shape, dtype: str = "float32", parameter_dtype: str | None = None) -> None:
        """Refuse a batch of a wrong `shape`, or of a dtype that is not floating point or not the parameters'.

        `parameter_dtype` None (mixed precision, or no parameters) stands for any floating-point dtype.

        Raises:
            ShapeError: what was given, and what was expected.
        """
        expected = self.describe()
        if not self._has_rank(shape):
            raise ShapeError(f"expected an input {expected}, got {len(shape)} dimensions: {tuple(shape)}")
        if not self.accepts(shape):
            raise ShapeError(f"expected an input {expected}, got {tuple(shape)}")
        if "float" not in dtype:
            raise ShapeError(
                f"expected a floating-point input {expected}, got {dtype}; convert it, and scale images to [0, 1]"
            )
        if parameter_dtype not in (None, dtype):
            half = parameter_dtype in ("float16", "bfloat16")
            raise ShapeError(
                f"expected an input of dtype {parameter_dtype}, as the parameters have, got {dtype}; convert one"
                + ("; load(path, dtype=...) widens the weights of a file of half precision" if half else "")
            )

    def describe(self) -> str:
        """The rule as people write it: (N, 3, 32, 32), or (N, 3, H, W) with H, W >= 4."""
        channels = "C" if self.channels is None else self.channels
        if self.rank == 2:
            return f"(N, {channels})"
        if self.rank is None:
            return f"(N, {channels}) or (N, {channels}, H, W)"
        if self.size is not None:
            return f"(N, {channels}, {self.size[0]}, {self.size[1]})"
        least = f" with H, W >= {self.minimum}" if self.minimum > 1 else ""
        return f"(N, {channels}, H, W){least}"

    def _has_rank(self, shape: Shape) -> bool:
        return len(shape) in (2, 4) if self.rank is None else len(shape) == self.rank


def input_rule(spec: Node) -> InputRule:
    """The rule of a spec; for a `Model` that only works at one size (flatten, then linear) the size is fixed."""
    channels = _channels(spec)
    if isinstance(spec, Model):
        channels, height, width = spec.input_shape
        if not _fits(spec, (channels, _FAR * height, _FAR * width)):
            return InputRule(4, channels, 1, (height, width))
    probe = channels or 1
    takes_vectors = not isinstance(spec, Model) and _fits(spec, (probe,))
    sides = (side for side in range(1, _LARGEST_MINIMUM + 1) if _fits(spec, (probe, side, side)))
    if (least := next(sides, None)) is None:
        return InputRule(2, channels, 1, None) if takes_vectors else InputRule(None, None, 1, None)
    rank = None if takes_vectors else 4
    if not _fits(spec, (probe, _FAR * least, _FAR * least)):
        return InputRule(rank, None, 1, None)
    return InputRule(rank, channels, least, None)


def example_shape(spec: Node, size: int | None = None) -> Shape:
    """The shape of a sample that the spec takes: (C, H, W), or (features,) for a layer that takes vectors alone.

    `size` is height and width; None the model's own, or 32 for a layer.

    Raises:
        ShapeError: the model takes no images of `size`.
    """
    if isinstance(spec, Model) and size is None:
        return spec.input_shape
    rule = input_rule(spec)
    if isinstance(spec, Model) and size is not None:
        shape = (spec.input_shape[0], size, size)
        rule.check((1, *shape))
        return shape
    channels = rule.channels or 3
    return (channels,) if rule.rank == 2 else (channels, size or _OF_LAYERS, size or _OF_LAYERS)


def check_training_batch(spec: Node, shape: Shape, is_training: Callable[[str], bool] = lambda path: True) -> None:
    """Refuse a batch (N, C, H, W) that gives some batch norm one value for each channel, whose variance says nothing.

    `is_training` says of a layer's path whether it is: a batch norm may be frozen in a network that trains.

    PyTorch's batch norm refuses it in nearly the same words; MindSpore's would make its running variance NaN.

    Raises:
        ShapeError: naming the layer; N is 1, and the map that it sees 1x1.
    """
    if shape[0] != 1 or len(shape) != 4:
        return
    for path, node, given, _ in spec.summary(shape[1:]):
        if isinstance(node, BatchNorm2d) and given[1:] == (1, 1) and is_training(path):
            sentence = "expected more than 1 value per channel when training, got input size"
            raise ShapeError(f"{sentence} {(1, *given)}; use a larger batch or larger maps", path)


def _channels(spec: Node) -> int | None:
    """What the first layer asks for; behind pooling that joins k statistics (a gate), a k-th of it.

    Behind pooling over the channels a layer asks for 1 whatever the input has: then any number will do.
    """
    first = spec.in_channels_expected
    if first is None or isinstance(spec, Model):
        return first
    for asked in dict.fromkeys(node.in_channels_expected for _, node in spec.walk()):
        for parts in range(1, _MOST_STATISTICS + 1):
            if asked is not None and asked % parts == 0 and _takes(spec, asked // parts):
                return None if _takes(spec, asked // parts + 1) else asked // parts
    return first


def _takes(spec: Node, channels: int) -> bool:
    return _fits(spec, (channels,)) or _fits(spec, (channels, _LARGEST_MINIMUM, _LARGEST_MINIMUM))


def _fits(spec: Node, shape: Shape) -> bool:
    try:
        spec.output_shape(shape)
    except ShapeError:
        return False
    return True
