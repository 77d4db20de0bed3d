"""Where a classifier's features end and its head begins, read off its spec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from maam.errors import SpecError
from maam.spec import Conv2d, Dropout, Flatten, GlobalPool, Model, Node, Parallel, Sequential, Shape, head


class Step(NamedTuple):
    """A layer of the chain, by canonical path, and the shape that it gives at the model's input shape."""

    path: str
    node: Node
    shape: Shape


class Anatomy(NamedTuple):
    """The parts of a classifier, by canonical path.

    Attributes:
        opened: chains whose children count as steps, because the head begins or ends inside.
        cut: the first step of the head: pooling or flatten; where the network has no map, the layer of the logits or
            the dropout in front of it.
        head: the layer that gives the logits.
        features: shape of what comes before `cut`.
        hidden: length of the vector that the layer of the logits takes.
        pooling: what the head pools with ("avg"), None where it does not.
        info: timm's description of the last map at each stride; none where the network has no map.
        stem: the first step that convolves, and those before it; `blocks`: the other steps before `cut`.
    """

    opened: frozenset[str]
    cut: str
    head: str
    features: Shape
    hidden: int
    pooling: str | None
    info: tuple[dict[str, Any], ...]
    stem: tuple[str, ...]
    blocks: tuple[str, ...]


def dissect(spec: Model) -> Anatomy:
    """The parts of a classifier.

    Raises:
        SpecError: the model does not end in logits, or the layer that gives them stands in no chain.
    """
    last = head(spec)
    opened = frozenset(_opened(spec, "", last))
    shapes = {path: shape for path, _, _, shape in spec.summary(spec.input_shape)}
    steps = [Step(path, node, shapes[path]) for path, node in _steps(spec, "", opened)]
    paths = [step.path for step in steps]
    if last not in paths:
        raise SpecError(f"{spec.name}: the layer of the logits, {last}, stands inside another layer, not in the chain")
    index = next((i for i, step in enumerate(steps) if _ends_features(step)), 0)
    if not index:  # no map; dropout in front of the logits belongs to the head
        index = paths.index(last)
        index -= index > 0 and isinstance(steps[index - 1].node, Dropout)
    body = steps[:index]
    first = next((i for i, step in enumerate(body) if _convolves(step.node)), len(body) - 1)
    cut = steps[index].node
    return Anatomy(
        opened=opened,
        cut=steps[index].path,
        head=last,
        features=body[-1].shape if body else spec.input_shape,
        hidden=_inputs(spec.at(last)),
        pooling=cut.function if isinstance(cut, GlobalPool) else None,
        info=tuple(_info(body[first:], spec.input_shape)),
        stem=tuple(paths[: first + 1]),
        blocks=tuple(paths[first + 1 : index]),
    )


def first_convolutions(node: Node, path: str = "") -> tuple[str, ...]:
    """The convolutions that see the image itself: one, or one in each branch."""
    found: tuple[str, ...] = ()
    for name, child in node.nodes.items():
        below = f"{path}.{name}" if path else name
        found += (below,) if isinstance(child, Conv2d) else first_convolutions(child, below)
        if found and not isinstance(node, Parallel):
            return found
    return found


def _opened(node: Node, path: str, last: str) -> Iterator[str]:
    """The chains that hold the head's beginning or its last layer, themselves or in a chain inside."""
    for name, child in node.nodes.items():
        below = f"{path}.{name}" if path else name
        if type(child) is Sequential:
            inside = [*_opened(child, below, last)]
            ends = any(isinstance(layer, (GlobalPool, Flatten)) for layer in child.nodes.values())
            if inside or ends or last.startswith(f"{below}."):
                yield from (below, *inside)


def _steps(node: Node, path: str, opened: frozenset[str]) -> Iterator[tuple[str, Node]]:
    for name, child in node.nodes.items():
        below = f"{path}.{name}" if path else name
        if below in opened:
            yield from _steps(child, below, opened)
        else:
            yield below, child


def _ends_features(step: Step) -> bool:
    return isinstance(step.node, (GlobalPool, Flatten)) or len(step.shape) != 3


def _convolves(node: Node) -> bool:
    return any(isinstance(below, Conv2d) for _, below in node.walk())


def _inputs(layer: Node) -> int:
    inputs = layer.in_channels_expected
    assert inputs is not None  # a convolution or a linear layer
    return inputs


def _info(body: list[Step], input_shape: Shape) -> Iterator[dict[str, Any]]:
    """The last map at each stride, as timm takes features."""
    for step, following in zip(body, [*body[1:], None], strict=True):
        if len(step.shape) == 3 and (following is None or following.shape[1] != step.shape[1]):
            yield {
                "module": step.path,
                "num_chs": step.shape[0],
                "reduction": input_shape[1] // step.shape[1],
            }
