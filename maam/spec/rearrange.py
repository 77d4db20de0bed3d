"""Rearrangement of axes: transposition, splitting, merging and repetition in one primitive."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import Field, model_validator

from maam.errors import ShapeError
from maam.spec.fields import MAX_SIZE, Shape
from maam.spec.node import Node

_GROUP = re.compile(r"\(([^()]*)\)|(\S+)")
_AXIS = re.compile(r"([a-z][a-z0-9_]*)(?:=([1-9][0-9]*))?")


class Plan(NamedTuple):
    """A rearrangement of one shape as operations of any framework. No shape contains the batch.

    Attributes:
        split: the shape with each axis of the left side separate.
        order: the axes of `split` in the order of the right side.
        single: the shape after that, with size 1 for repeated axes.
        full: the same with the repetitions.
        merged: the shape of the result.
    """

    split: Shape
    order: tuple[int, ...]
    single: Shape
    full: Shape
    merged: Shape


Groups = tuple[tuple[str, ...], ...]
Parsed = tuple[Groups, Groups, tuple[tuple[str, int], ...]]
"""The axes of the left and of the right side of a pattern, and the stated sizes. Compilers can trace plain tuples."""


class Rearrange(Node):
    """Transpose, split, merge and repeat axes by a pattern in the style of einops.

    The pattern names the axes of a sample before and after the arrow; brackets merge axes, and `name=size` states a
    size. An axis that is new on the right side repeats the values. The batch is not part of the pattern.

    - `"c h w -> h c w"`: transpose.
    - `"(g=2 c) h w -> (c g) h w"`: channel shuffle with two groups.
    - `"c h w -> 1 c (h w)"`: one row of positions for each channel.
    - `"c h w -> (c r=3) h w"`: every channel three times.

    Example:
        >>> from maam import spec
        >>> spec.Rearrange(pattern="c h w -> c (h w) 1").output_shape((8, 4, 6))
        (8, 24, 1)
    """

    kind: ClassVar[str] = "rearrange"
    pattern: Annotated[str, Field(max_length=200)]

    @model_validator(mode="after")
    def _pattern_is_valid(self) -> Rearrange:
        parse(self.pattern)
        return self

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the right side."""
        return plan(parse(self.pattern), tuple(input_shape)).merged


@functools.lru_cache(maxsize=1024)
def parse(pattern: str) -> Parsed:
    """Return the parts of a pattern.

    Raises:
        ValueError: the pattern is not valid.
    """
    sides = pattern.split("->")
    if len(sides) != 2:
        raise ValueError(f"pattern: expected axes, an arrow and axes, such as 'c h w -> c (h w)', got {pattern!r}")
    sizes: dict[str, int] = {}
    left, right = (tuple(_axes(side, sizes) for side in _groups(side)) for side in sides)
    names = [[name for group in side for name in group] for side in (left, right)]
    if any(len(set(found)) < len(found) for found in names):
        raise ValueError(f"pattern: expected every axis once on each side, got {pattern!r}")
    if lost := [name for name in names[0] if name not in names[1]]:
        raise ValueError(f"pattern: the axis {lost[0]!r} is missing on the right side of {pattern!r}")
    if unknown := [name for name in names[1] if name not in names[0] and name not in sizes]:
        raise ValueError(f"pattern: the new axis {unknown[0]!r} needs a size, such as {unknown[0]}=2, in {pattern!r}")
    if any(sum(name not in sizes for name in group) > 1 for group in left):
        raise ValueError(f"pattern: expected at most one axis without a size in brackets on the left of {pattern!r}")
    return left, right, tuple(sizes.items())


def _groups(side: str) -> list[str]:
    found = [match.group(1) if match.group(1) is not None else match.group(2) for match in _GROUP.finditer(side)]
    if not found or any(bracket in group for group in found for bracket in "()"):
        raise ValueError(f"pattern: expected names of axes and brackets, got {side.strip()!r}")
    return found


def _axes(group: str, sizes: dict[str, int]) -> tuple[str, ...]:
    """Return the names of one group, and add their sizes to `sizes`; "1" stands for no axis."""
    names = []
    for word in group.split():
        if word == "1":
            continue
        match = _AXIS.fullmatch(word)
        if match is None or (match[2] and int(match[2]) > MAX_SIZE):
            raise ValueError(f"pattern: expected a name of an axis, name=size or 1, got {word[:60]!r}")
        if match[2]:
            sizes[match[1]] = int(match[2])
        names.append(match[1])
    return tuple(names)


def plan(pattern: Parsed, shape: Shape) -> Plan:
    """Return the operations of a pattern for a shape without batch.

    Raises:
        ShapeError: the shape does not fit the pattern.
    """
    left, right, stated = pattern
    if len(shape) != len(left):
        raise ShapeError(f"expected {len(left)} axes for a rearrangement, got shape {shape}")
    sizes = dict(stated)
    for group, size in zip(left, shape, strict=True):
        _solve(group, size, sizes)
    before = [name for group in left for name in group]
    after = [name for group in right for name in group]
    kept = [name for name in after if name in before]
    return Plan(
        split=tuple([sizes[name] for name in before]),
        order=tuple([before.index(name) for name in kept]),
        single=tuple([sizes[name] if name in before else 1 for name in after]),
        full=tuple([sizes[name] for name in after]),
        merged=tuple([_product([sizes[name] for name in group]) for group in right]),
    )


def _product(sizes: Sequence[int]) -> int:
    """Return the product; torch.compile does not trace `math.prod` of a generator."""
    product = 1
    for size in sizes:
        product *= size
    return product


def _solve(group: Sequence[str], size: Any, sizes: dict[str, int]) -> None:
    """Add the size of the one axis of a group that has none."""
    known = _product([sizes[name] for name in group if name in sizes])
    unknown = [name for name in group if name not in sizes]
    if (size % known if unknown else size != known) or not size:
        raise ShapeError(f"an axis of size {size} does not fit ({' '.join(group) or '1'}) of a rearrangement")
    for name in unknown:
        sizes[name] = size // known
