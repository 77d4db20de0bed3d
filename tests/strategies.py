"""Hypothesis strategies of random valid specs, each with an input shape that fits it.

Small (at most about 8 channels, maps of 12, a dozen layers), so that building and running one takes milliseconds;
otherwise all that is valid may come: windows that lie in padding, maps of 1x1, empty chains, nested containers.
"""

from __future__ import annotations

from typing import Any, get_args

from hypothesis import strategies as st

from maam.spec import (
    Flatten,
    GlobalPool,
    Model,
    Node,
    Parallel,
    Residual,
    Resize,
    Scale,
    Sequential,
    Shape,
    Unflatten,
    parse_document,
)
from maam.spec.containers import Merge
from tests import layer_strategies as layers

MAX_SIDE = 12
_sides = st.integers(1, MAX_SIDE)
_shapes = st.tuples(layers.widths, _sides, _sides)


@st.composite
def specs(draw: st.DrawFn) -> tuple[Node, Shape]:
    """A random spec and the shape of one sample, (C, H, W) or (features,), that it accepts."""
    shape: Shape = draw(_shapes if draw(st.integers(0, 5)) else st.tuples(layers.widths))
    if draw(st.integers(0, 9)) == 0:
        return draw(_layers(shape, depth=2)), shape  # a bare layer
    children, out = draw(_chains(shape, depth=2, longest=4))
    children |= draw(_heads(out))
    if len(shape) == 3 and draw(st.booleans()):
        return Model(name="random", input_shape=shape, children=children), shape
    return Sequential(children=children), shape


def without_dropout(spec: Node) -> Node:
    """The same spec with all dropout probabilities 0, for comparisons in training mode."""
    return parse_document(_zero_p(spec.to_document()))


def _zero_p(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: 0.0 if value.get("kind") == "dropout" and key == "p" else _zero_p(v) for key, v in value.items()}


@st.composite
def _heads(draw: st.DrawFn, shape: Shape) -> dict[str, Node]:
    """Nothing, or layers that end in logits."""
    if len(shape) == 1 or draw(st.integers(0, 2)) == 0:
        return {}
    if draw(st.booleans()):
        head: dict[str, Node] = {"rnn": draw(layers.rnns(shape))}
    else:
        head = {"pool": GlobalPool()} if draw(st.booleans()) else {}
        head["flatten"] = Flatten()
    features = Sequential(children=head).output_shape(shape)
    if draw(st.booleans()):
        hidden = draw(layers.linears(features))
        head |= {"fc1": hidden, "act": draw(layers.plain)}
        features = (hidden.out_features,)
    return {**head, "fc2": draw(layers.linears(features))}


@st.composite
def _chains(
    draw: st.DrawFn, shape: Shape, depth: int, *, keep: bool = False, maps: bool = False, longest: int = 2
) -> tuple[dict[str, Node], Shape]:
    """Named layers in a row and the shape they end with; `keep`: the shape stays; `maps`: it stays a map."""
    children: dict[str, Node] = {}
    pattern = draw(st.sampled_from(["{kind}{index}", "{index}"]))
    for index in range(draw(st.integers(0, longest))):
        node = draw(_keeping(shape, depth) if keep else _layers(shape, depth, maps=maps))
        children[pattern.format(kind=node.kind, index=index)] = node
        shape = node.output_shape(shape)
    return children, shape


def _layers(shape: Shape, depth: int, *, maps: bool = False) -> st.SearchStrategy[Node]:
    """Any layer that fits `shape`; `maps`: one that gives a map again."""
    options = [_keeping(shape, depth)]
    if len(shape) == 1:
        options += [layers.linears(shape), st.just(Unflatten())]
    else:
        options += [layers.convs(shape), layers.max_pools(shape), layers.avg_pools(shape)]
        options += [layers.global_pools, layers.channel_pools, layers.maams(shape)]
    if not maps:
        options += [st.just(Flatten())] + ([layers.rnns(shape)] if len(shape) == 3 else [])
    if depth > 0:
        options += [_parallels(shape, depth - 1)] * 4  # there are five ways to merge
        options += [_resizes(shape, depth - 1)] if len(shape) == 3 else []
    return st.one_of(options)


def _keeping(shape: Shape, depth: int) -> st.SearchStrategy[Node]:
    """A layer whose output has the shape of its input."""
    options: list[st.SearchStrategy[Node]] = [layers.plain, layers.projections(shape, shape[0])]
    if len(shape) == 3:
        options.append(layers.batch_norms(shape))
    if depth > 0:
        options += [_residuals(shape, depth - 1), _scales(shape, depth - 1)]
    return st.one_of(options)


@st.composite
def _residuals(draw: st.DrawFn, shape: Shape, depth: int) -> Residual:
    children, _ = draw(_chains(shape, depth, keep=True))
    if draw(st.booleans()):  # through another width and back
        wide = draw(layers.widths)
        children["expand"] = draw(layers.projections(shape, wide))
        children["project"] = draw(layers.projections((wide, *shape[1:]), shape[0]))
    return Residual(children=children)


@st.composite
def _scales(draw: st.DrawFn, shape: Shape, depth: int) -> Scale:
    """A gate of the input's shape, of one value a channel, of one a position, or of one in all."""
    children, gate = draw(_chains(shape, depth, keep=True))
    if len(shape) == 3 and draw(st.booleans()):
        children["pool"] = draw(layers.global_pools)
        gate = (shape[0], 1, 1)
    if draw(st.booleans()):
        children["fc"] = draw(layers.projections(gate, draw(st.sampled_from([1, shape[0]]))))
    return Scale(children={**children, "gate": draw(layers.plain)})


@st.composite
def _resizes(draw: st.DrawFn, shape: Shape, depth: int) -> Resize:
    children, _ = draw(_chains(shape, depth, maps=True))
    return Resize(children=children, stride=draw(st.integers(1, min(3, *shape[1:]))))


@st.composite
def _parallels(draw: st.DrawFn, shape: Shape, depth: int) -> Parallel:
    merges = [merge for merge in get_args(Merge) if merge != "stack" or len(shape) == 3]
    merge, count = draw(st.sampled_from(merges)), draw(st.integers(1, 3))
    stride = draw(st.integers(1, 2)) if len(shape) == 3 else 1
    widths = [draw(layers.widths)] * count
    if merge == "concat":
        widths = [draw(st.integers(1, 3)) for _ in range(count)]
    children = {str(index): draw(_branches(shape, depth, width, stride)) for index, width in enumerate(widths)}
    weights = tuple(draw(st.floats(-2, 2, width=32)) for _ in children) if merge == "weighted" else None
    weighting = draw(_weightings(shape, count)) if merge == "dynamic" else None
    return Parallel(children=children, merge=merge, weights=weights, weighting=weighting)


@st.composite
def _branches(draw: st.DrawFn, shape: Shape, depth: int, width: int, stride: int) -> Node:
    children, _ = draw(_chains(shape, depth, keep=True))
    if (width, stride) != (shape[0], 1) or draw(st.booleans()):
        children["out"] = draw(layers.projections(shape, width, stride))
    return Sequential(children=children)


@st.composite
def _weightings(draw: st.DrawFn, shape: Shape, count: int) -> Node:
    children: dict[str, Node] = {"pool": draw(layers.global_pools)} if len(shape) == 3 else {}
    children |= {"flatten": Flatten(), "fc": draw(layers.linears(shape, count)), "act": draw(layers.plain)}
    return Sequential(children=children)
