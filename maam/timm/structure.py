"""The structure of a classifier, read from its spec: where its features end and its head begins."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from maam.errors import ShapeError, SpecError
from maam.spec import (
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalPool,
    Identity,
    Model,
    Node,
    Parallel,
    Sequential,
    Shape,
    head,
)
from maam.spec.node import join_path

LEAST_MAPS = 3
"""The number of maps that timm requires of every network; one with fewer strides shows its inner maps."""
_MORE_ROWS = 1 << 12
"""A number of rows that the usual strides divide."""


class Structure(NamedTuple):
    """The parts of a classifier, by canonical path.

    A classifier is a chain of steps: the stem, the blocks, and the head.

    Attributes:
        opened: chains whose children are separate steps, because the head begins or ends inside, or to show their maps.
        cut: the first step of the head: pooling or flatten.
        head: the layer of the logits.
        features: the shape of the input of `cut`.
        hidden: the length of the vector that `head` takes.
        pooling: the pooling of the head ("avg"), or None.
        pool_size: height and width of `features`.
        info: timm's description of the maps: the last one at each stride. If there are fewer than `LEAST_MAPS`, the
            maps inside the steps count too, and if that is not enough, all maps that fusion keeps, those of branches
            included.
        stem: the first step with a convolution, and the steps before it.
        blocks: the other steps before `cut`.
    """

    opened: frozenset[str]
    cut: str
    head: str
    features: Shape
    hidden: int
    pooling: str | None
    pool_size: Shape
    info: tuple[dict[str, Any], ...]
    stem: tuple[str, ...]
    blocks: tuple[str, ...]


class _Step(NamedTuple):
    """A step of the chain, by canonical path, with its output shape at the input shape of the model."""

    path: str
    node: Node
    shape: Shape


def analyze(spec: Model) -> Structure:
    """Return the parts of a classifier.

    Raises:
        SpecError: the model does not end in logits, has too few maps, or the layer of the logits is inside a layer that
            is not a chain.
    """
    last = head(spec)
    opened = frozenset(_opened(spec, "", last))
    shapes = {path: shape for path, _, _, shape in spec.summary(spec.input_shape)}
    steps = [_Step(path, node, shapes[path]) for path, node in _steps(spec, "", opened)]
    paths = [step.path for step in steps]
    if last not in paths:
        raise SpecError(
            f"{spec.name}: the layer of the logits, {last}, is inside another layer; expected it in the chain of layers"
        )
    index = next((i for i, step in enumerate(steps) if _ends_features(step)), 0)
    cut, body = steps[index], steps[:index]
    first = _first_convolution(body)
    maps = _last_of_each_stride(body[first:])
    if len(maps) < LEAST_MAPS:
        opened |= {path for step in body for path in _chains(step.path, step.node)}
        inner = [_Step(path, node, shapes[path]) for path, node in _steps(spec, "", opened)]
        inner = inner[: [step.path for step in inner].index(cut.path)]
        inner = inner[_first_convolution(inner) :]
        maps = _last_of_each_stride(inner)
        maps = maps if len(maps) >= LEAST_MAPS else list(_all_maps(inner, shapes))
    if len(maps) < LEAST_MAPS:
        raise SpecError(f"{spec.name}: {len(maps)} feature maps; the models of timm have at least {LEAST_MAPS}")
    hidden = spec.at(last).in_channels_expected
    assert hidden is not None  # the layer of the logits is a convolution or a linear layer
    return Structure(
        opened=opened,
        cut=cut.path,
        head=last,
        features=body[-1].shape,
        hidden=hidden,
        pooling=cut.node.function if isinstance(cut.node, GlobalPool) else None,
        pool_size=body[-1].shape[1:],
        info=_info(spec, maps),
        stem=tuple(paths[: first + 1]),
        blocks=tuple(paths[first + 1 : index]),
    )


def first_convolutions(node: Node, path: str = "") -> tuple[str, ...]:
    """Return the paths of the convolutions that take the image: one, or one in each branch."""
    found: tuple[str, ...] = ()
    for name, child in node.nodes.items():
        below = join_path(path, name)
        found += (below,) if isinstance(child, Conv2d) else first_convolutions(child, below)
        if found and not isinstance(node, Parallel):
            return found
    return found


def _opened(node: Node, path: str, last: str) -> Iterator[str]:
    """Yield the chains that contain, at any depth, the first step of the head or the layer of the logits."""
    for name, child in node.nodes.items():
        below = join_path(path, name)
        if type(child) is Sequential:
            inside = [*_opened(child, below, last)]
            ends = any(isinstance(layer, (GlobalPool, Flatten)) for layer in child.nodes.values())
            if inside or ends or last.startswith(f"{below}."):
                yield from (below, *inside)


def _steps(node: Node, path: str, opened: frozenset[str]) -> Iterator[tuple[str, Node]]:
    for name, child in node.nodes.items():
        below = join_path(path, name)
        if below in opened:
            yield from _steps(child, below, opened)
        else:
            yield below, child


def _ends_features(step: _Step) -> bool:
    return isinstance(step.node, (GlobalPool, Flatten)) or len(step.shape) != 3


def _first_convolution(steps: list[_Step]) -> int:
    """Return the index of the first step with a convolution, or the number of steps."""
    found = (i for i, step in enumerate(steps) if any(isinstance(node, Conv2d) for _, node in step.node.walk()))
    return next(found, len(steps))


def _chains(path: str, node: Node) -> Iterator[str]:
    """Yield the chains at and below `path` that are not inside another kind of container."""
    if type(node) is Sequential:
        yield path
        for name, child in node.nodes.items():
            yield from _chains(f"{path}.{name}", child)


def _last_of_each_stride(steps: list[_Step]) -> list[_Step]:
    last = len(steps) - 1
    return [step for i, step in enumerate(steps) if i == last or steps[i + 1].shape[1] != step.shape[1]]


def _all_maps(steps: list[_Step], shapes: dict[str, Shape]) -> Iterator[_Step]:
    """Yield the maps of steps and, before a merged map, of its branches; fusion removes the layers left out here."""
    for step in steps:
        if isinstance(step.node, Parallel):
            branches = ((f"{step.path}.{name}", branch) for name, branch in step.node.children.items())
            yield from (_Step(path, branch, shapes[path]) for path, branch in branches)
        if not isinstance(step.node, (BatchNorm2d, Dropout, Identity)):
            yield step


def _info(spec: Model, maps: list[_Step]) -> tuple[dict[str, Any], ...]:
    """Return timm's descriptions of maps.

    The reduction is the stride of a map: how many rows the image needs for each further row of the map. The quotient of
    the heights is larger where layers drop border pixels; it is used if the network takes images of one size only.
    """
    channels, height, width = spec.input_shape
    larger = {}
    with contextlib.suppress(ShapeError):
        summary = spec.summary((channels, height + _MORE_ROWS, width + _MORE_ROWS))
        larger = {path: shape for path, _, _, shape in summary}
    found = []
    for path, _, shape in maps:
        rows = larger.get(path, shape)[1] - shape[1]
        reduction = round(_MORE_ROWS / rows) if rows else height // shape[1]
        found.append({"module": path, "num_chs": shape[0], "reduction": reduction})
    return tuple(found)
