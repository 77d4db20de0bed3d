"""The structure of a classifier, read from its spec: where its features end and its head begins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from maam.errors import SpecError
from maam.spec import Conv2d, Dropout, Flatten, GlobalPool, Model, Node, Parallel, Sequential, Shape, head


class Structure(NamedTuple):
    """The parts of a classifier, by canonical path.

    A classifier is a chain of steps: the stem, the blocks, and the head.

    Attributes:
        opened: chains whose children are separate steps, because the head begins or ends inside.
        cut: the first step of the head: pooling or flatten. In a network without maps: the layer of the logits, or the
            dropout before it.
        head: the layer of the logits.
        features: the shape of the input of `cut`.
        hidden: the length of the vector that `head` takes.
        pooling: the pooling of the head ("avg"), or None.
        info: timm's description of the last map at each stride; empty for a network without maps.
        stem: the first step with a convolution, and the steps before it.
        blocks: the other steps before `cut`.
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


class _Step(NamedTuple):
    """A step of the chain, by canonical path, with its output shape at the input shape of the model."""

    path: str
    node: Node
    shape: Shape


def analyze(spec: Model) -> Structure:
    """Return the parts of a classifier.

    Raises:
        SpecError: the model does not end in logits, or the layer of the logits is inside a layer that is not a chain.
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
    if not index:  # a network without maps; dropout before the logits belongs to the head
        index = paths.index(last)
        index -= index > 0 and isinstance(steps[index - 1].node, Dropout)
    body = steps[:index]
    first = next((i for i, step in enumerate(body) if _convolves(step.node)), len(body) - 1)
    cut = steps[index].node
    hidden = spec.at(last).in_channels_expected
    assert hidden is not None  # the layer of the logits is a convolution or a linear layer
    return Structure(
        opened=opened,
        cut=steps[index].path,
        head=last,
        features=body[-1].shape if body else spec.input_shape,
        hidden=hidden,
        pooling=cut.function if isinstance(cut, GlobalPool) else None,
        info=tuple(_info(body[first:], spec.input_shape)),
        stem=tuple(paths[: first + 1]),
        blocks=tuple(paths[first + 1 : index]),
    )


def first_convolutions(node: Node, path: str = "") -> tuple[str, ...]:
    """Return the paths of the convolutions that take the image: one, or one in each branch."""
    found: tuple[str, ...] = ()
    for name, child in node.nodes.items():
        below = f"{path}.{name}" if path else name
        found += (below,) if isinstance(child, Conv2d) else first_convolutions(child, below)
        if found and not isinstance(node, Parallel):
            return found
    return found


def _opened(node: Node, path: str, last: str) -> Iterator[str]:
    """Yield the chains that contain, at any depth, the first step of the head or the layer of the logits."""
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


def _ends_features(step: _Step) -> bool:
    return isinstance(step.node, (GlobalPool, Flatten)) or len(step.shape) != 3


def _convolves(node: Node) -> bool:
    return any(isinstance(below, Conv2d) for _, below in node.walk())


def _info(body: list[_Step], input_shape: Shape) -> Iterator[dict[str, Any]]:
    """Yield the last map at each stride in timm's form."""
    for step, following in zip(body, [*body[1:], None], strict=True):
        if len(step.shape) == 3 and (following is None or following.shape[1] != step.shape[1]):
            yield {
                "module": step.path,
                "num_chs": step.shape[0],
                "reduction": input_shape[1] // step.shape[1],
            }
