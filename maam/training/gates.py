"""The layers of a network that are gates: every value of the output is a value of the input, times a weight."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from maam.reference import functions as F  # noqa: N812
from maam.spec import (
    Activation,
    Dropout,
    Graph,
    Identity,
    Node,
    Parallel,
    Rearrange,
    Residual,
    Scale,
    Sequential,
)
from maam.spec.containers import Resize
from maam.spec.fields import Shape
from maam.spec.graph import Step
from maam.spec.node import join_path
from maam.spec.primitives import CURVES

Array = np.ndarray[Any, Any]


class _Multiple(NamedTuple):
    """An array in which each element is a multiple of one element of the input.

    Attributes:
        positions: for each element, the position (row * W + column) of that element of the input, (N, C, H, W).
        weighted: whether the factors depend on the input.
    """

    positions: Array
    weighted: bool = False


def gate_paths(spec: Node, input_shape: Shape) -> Iterator[str]:
    """Yield the paths of all gates that are not inside another one; the layers of a chain count one by one.

    A gate multiplies each value of its input by a weight that depends on the input, and keeps its position. It may move
    channels, as shuffle attention does. Layers that mix positions or branches, such as "mhsa", "agent" and "sk", are
    not gates.

    Args:
        spec: the spec.
        input_shape: the shape of the input, (C, H, W).

    Example:
        >>> from maam import spec
        >>> from maam.training.gates import gate_paths
        >>> list(gate_paths(spec.mafc(8), (8, 6, 6))), list(gate_paths(spec.sk(8), (8, 6, 6)))
        (['ChannelGate', 'SpatialGate'], [])
    """
    yield from _paths(spec, "", input_shape)


def _paths(node: Node, path: str, shape: Shape) -> Iterator[str]:
    chain = isinstance(node, Sequential) and not isinstance(node, (Scale, Residual))
    if not chain and _is_gate(node, shape):
        yield path
        return
    for name, child, given in node.child_shapes(shape):
        yield from _paths(child, join_path(path, name), given)


def _is_gate(node: Node, shape: Shape) -> bool:
    if len(shape) != 3 or not node.nodes:
        return False
    positions = np.arange(shape[1] * shape[2], dtype=np.int32).reshape(shape[1:])
    x = _Multiple(np.broadcast_to(positions, (1, *shape)))
    y = _through(node, x)
    return y is not None and y.weighted and _same(x, y)


def _same(*values: _Multiple) -> bool:
    first = values[0].positions
    return all(value.positions.shape == first.shape and np.array_equal(value.positions, first) for value in values)


def _through(node: Node, x: _Multiple | None) -> _Multiple | None:
    """Return the output of a layer for a multiple of the input; None if the output is not a multiple."""
    if x is None or isinstance(node, (Identity, Dropout)):
        return x
    if isinstance(node, Rearrange):
        return x._replace(positions=F.rearrange(x.positions, node.pattern))
    if isinstance(node, Activation):  # an activation alone is not a gate, but a gate may end in one
        is_multiple = CURVES[node.function].keeps_zero  # where f(0) = 0, f(x) is a multiple of x
        return x if node.function == "identity" or (x.weighted and is_multiple) else None
    if isinstance(node, Scale):
        return x._replace(weighted=True)
    if isinstance(node, Graph):
        return _through_graph(node, x)
    if isinstance(node, Parallel):
        outputs = [_through(child, x) for child in node.children.values()]
        if node.merge in ("concat", "stack"):
            return _joined(node.merge, outputs)
        return _sum(outputs)
    if not isinstance(node, Sequential) or isinstance(node, Resize):
        return None
    y: _Multiple | None = x
    for child in node.children.values():
        y = _through(child, y)
    return _sum([x, y]) if isinstance(node, Residual) else y


def _through_graph(node: Graph, x: _Multiple) -> _Multiple | None:
    shapes = node.value_shapes(x.positions.shape[1:])
    values: list[_Multiple | None] = [x, *(None for _ in node.arrays)]
    constant = [False, *(True for _ in node.arrays)]
    for step, shape in zip(node.steps, shapes[len(values) :], strict=True):
        given = [values[index] for index in step.values]
        if step.op == "call":
            values.append(_through(node.children[step.name], given[0]))
        elif step.op in ("mul", "div"):
            values.append(_product(step.op, given, [constant[index] for index in step.values], shape))
        elif step.op in ("add", "sub"):
            values.append(_sum(given))
        else:
            values.append(_moved(step, given, shape))
        constant.append(not step.folds)
    return values[-1]


def _product(op: str, given: Sequence[_Multiple | None], constant: Sequence[bool], shape: Shape) -> _Multiple | None:
    """Return a multiple times another value, if that does not broadcast it; a quotient if the first is the multiple."""
    indices = [index for index, value in enumerate(given) if value is not None]
    if len(indices) != 1 or (op == "div" and indices != [0]):
        return None
    value = given[indices[0]]
    if value is None or value.positions.shape[1:] != shape:
        return None
    return value._replace(weighted=value.weighted or not constant[1 - indices[0]])


def _sum(given: Sequence[_Multiple | None]) -> _Multiple | None:
    values = [value for value in given if value is not None]
    if len(values) < len(given) or not _same(*values):
        return None
    return values[0]._replace(weighted=any(value.weighted for value in values))


def _joined(op: str, given: Sequence[_Multiple | None]) -> _Multiple | None:
    values = [value for value in given if value is not None]
    if len(values) < len(given):
        return None
    positions = np.concatenate([value.positions for value in values], 1 if op == "concat" else 2)
    return _Multiple(positions, any(value.weighted for value in values))


def _moved(step: Step, given: Sequence[_Multiple | None], shape: Shape) -> _Multiple | None:
    """Return the result of an operation that moves values without changing them."""
    if step.op in ("concat", "stack"):
        return _joined(step.op, given)
    if not given or (first := given[0]) is None:
        return None
    if step.op in ("fold", "unfold", "channels"):
        return first._replace(positions=F.operate(step, [first.positions]))
    if step.op == "like":
        return first._replace(positions=first.positions.reshape(-1, *shape))
    if step.op in ("first", "last"):
        rows = slice(shape[1]) if step.op == "first" else slice(first.positions.shape[2] - shape[1], None)
        return first._replace(positions=first.positions[:, :, rows])
    return None


def share_kept(x: Array, y: Array) -> Array:
    """Return the share of each position that a gate keeps, sum_c |y_c| / sum_c |x_c|: (C, H, W) twice to (H, W).

    Where x is 0, the weight cannot be determined; the position gets the share of the whole map, or 1 if x is 0
    everywhere.
    """
    before, after = np.abs(x).sum(0), np.abs(y).sum(0)
    total = math.fsum(before.ravel())
    whole = math.fsum(after.ravel()) / total if total > 0 else 1.0
    return np.where(before > 0, after / np.where(before > 0, before, 1), whole)
