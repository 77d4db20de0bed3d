"""Hypothesis strategies: random valid specs, each with an input shape that it accepts.

The specs are small (about 8 channels, maps of 12, a dozen layers), so that they run in milliseconds. Otherwise they
cover everything valid: windows inside the padding, maps of 1x1, empty chains, nested containers.
"""

from __future__ import annotations

import json
from functools import partial
from math import prod
from typing import Any, get_args

from hypothesis import strategies as st

from maam import spec
from maam.spec import Node, Shape
from maam.spec.containers import Merge
from maam.spec.parameters import WeightInit
from maam.spec.primitives import ActivationName, ElementwiseName

MAX_SIDE = 12
MAX_CHANNELS = 8
FUNCTIONS = get_args(ActivationName)

widths = st.integers(1, MAX_CHANNELS)
inits = st.sampled_from(get_args(WeightInit))
_statistics = st.sampled_from(["avg", "max", "std", "sum", "var"])
global_pools = st.builds(spec.GlobalPool, function=_statistics)
line_pools = st.builds(spec.GlobalPool, function=_statistics, axis=st.sampled_from(["channels", "height", "width"]))
activations = st.builds(
    spec.Activation, function=st.sampled_from(FUNCTIONS), negative_slope=st.sampled_from([0.01, 0.3, 0.0])
)
plain = activations | st.sampled_from([spec.Identity(), spec.Dropout(p=0.0), spec.Dropout(p=0.5)])
"""Layers without parameters that accept any shape and keep it."""
_sides = st.integers(1, MAX_SIDE)
_shapes = st.tuples(widths, _sides, _sides)


@st.composite
def specs(draw: st.DrawFn) -> tuple[Node, Shape]:
    """Return a random spec and the shape of a sample, (C, H, W) or (features,), that it accepts."""
    shape: Shape = draw(_shapes if draw(st.integers(0, 5)) else st.tuples(widths))
    if draw(st.integers(0, 9)) == 0:
        return draw(_layers(shape, depth=2)), shape  # a bare layer
    children, out = draw(_chains(shape, depth=2, longest=4))
    children |= draw(_heads(out))
    if len(shape) == 3 and draw(st.booleans()):
        return spec.Model(name="random", input_shape=shape, children=children), shape
    return spec.Sequential(children=children), shape


def without_dropout(node: Node) -> Node:
    """Return the spec with all dropout probabilities 0, for comparisons in training mode."""

    def quiet(fields: dict[str, Any]) -> dict[str, Any]:
        return fields | {"p": 0.0} if fields.get("kind") == "dropout" else fields

    return spec.parse_document(json.loads(node.to_json(), object_hook=quiet))


@st.composite
def _heads(draw: st.DrawFn, shape: Shape) -> dict[str, Node]:
    if len(shape) == 1 or draw(st.integers(0, 2)) == 0:
        return {}
    if draw(st.booleans()):
        head: dict[str, Node] = {"rnn": draw(rnns(shape))}
    else:
        head = {"pool": spec.GlobalPool()} if draw(st.booleans()) else {}
        head["flatten"] = spec.Flatten()
    features = spec.Sequential(children=head).output_shape(shape)
    if draw(st.booleans()):
        hidden = draw(linears(features))
        head |= {"fc1": hidden, "act": draw(plain)}
        features = (hidden.out_features,)
    return {**head, "fc2": draw(linears(features))}


@st.composite
def _chains(
    draw: st.DrawFn, shape: Shape, depth: int, *, keep: bool = False, maps: bool = False, longest: int = 2
) -> tuple[dict[str, Node], Shape]:
    """Return a chain and its output shape; `keep` keeps the shape, `maps` keeps it a feature map."""
    children: dict[str, Node] = {}
    pattern = draw(st.sampled_from(["{kind}{index}", "{index}"]))
    for index in range(draw(st.integers(0, longest))):
        node = draw(_keeping(shape, depth) if keep else _layers(shape, depth, maps=maps))
        children[pattern.format(kind=node.kind, index=index)] = node
        shape = node.output_shape(shape)
    return children, shape


def _layers(shape: Shape, depth: int, *, maps: bool = False) -> st.SearchStrategy[Node]:
    """Return any layer for `shape`; with `maps`, one whose output is a feature map."""
    options = [_keeping(shape, depth)]
    if len(shape) == 1:
        options += [linears(shape), st.just(spec.Unflatten())]
    else:
        options += [convs(shape), max_pools(shape), avg_pools(shape)]
        options += [global_pools, line_pools, maams(shape)]
    if not maps:
        options += [st.just(spec.Flatten())] + ([rnns(shape)] if len(shape) == 3 else [])
    if depth > 0:
        options += [_parallels(shape, depth - 1)] * 4  # because there are five merges
        options += [_resizes(shape, depth - 1)] if len(shape) == 3 else []
    return st.one_of(options)


def _keeping(shape: Shape, depth: int) -> st.SearchStrategy[Node]:
    options: list[st.SearchStrategy[Node]] = [plain, projections(shape, shape[0])]
    if len(shape) == 3:
        options += [batch_norms(shape), attentions(shape)]
    if depth > 0:
        options += [_residuals(shape, depth - 1), _scales(shape, depth - 1)]
    return st.one_of(options)


@st.composite
def _residuals(draw: st.DrawFn, shape: Shape, depth: int) -> spec.Residual:
    children, _ = draw(_chains(shape, depth, keep=True))
    if draw(st.booleans()):  # to another width and back
        wide = draw(widths)
        children["expand"] = draw(projections(shape, wide))
        children["project"] = draw(projections((wide, *shape[1:]), shape[0]))
    return spec.Residual(children=children)


@st.composite
def _scales(draw: st.DrawFn, shape: Shape, depth: int) -> spec.Scale:
    """Return a gate with one value for each element, channel or position, or one value in total."""
    children, gate = draw(_chains(shape, depth, keep=True))
    if len(shape) == 3 and draw(st.booleans()):
        children["pool"] = draw(global_pools)
        gate = (shape[0], 1, 1)
    if draw(st.booleans()):
        children["fc"] = draw(projections(gate, draw(st.sampled_from([1, shape[0]]))))
    return spec.Scale(children={**children, "gate": draw(plain)})


@st.composite
def _resizes(draw: st.DrawFn, shape: Shape, depth: int) -> spec.Resize:
    children, _ = draw(_chains(shape, depth, maps=True))
    return spec.Resize(children=children, stride=draw(st.integers(1, min(3, *shape[1:]))))


@st.composite
def _parallels(draw: st.DrawFn, shape: Shape, depth: int) -> spec.Parallel:
    merges = [merge for merge in get_args(Merge) if merge != "stack" or len(shape) == 3]
    merge, count = draw(st.sampled_from(merges)), draw(st.integers(1, 3))
    stride = draw(st.integers(1, 2)) if len(shape) == 3 else 1
    sizes = [draw(widths)] * count
    if merge == "concat":
        sizes = [draw(st.integers(1, 3)) for _ in range(count)]
    children = {str(index): draw(_branches(shape, depth, width, stride)) for index, width in enumerate(sizes)}
    weights = tuple(draw(st.floats(-2, 2, width=32)) for _ in children) if merge == "weighted" else None
    weighting = draw(_weightings(shape, count)) if merge == "dynamic" else None
    return spec.Parallel(children=children, merge=merge, weights=weights, weighting=weighting)


@st.composite
def _branches(draw: st.DrawFn, shape: Shape, depth: int, width: int, stride: int) -> Node:
    children, _ = draw(_chains(shape, depth, keep=True))
    if (width, stride) != (shape[0], 1) or draw(st.booleans()):
        children["out"] = draw(projections(shape, width, stride))
    return spec.Sequential(children=children)


@st.composite
def _weightings(draw: st.DrawFn, shape: Shape, count: int) -> Node:
    children: dict[str, Node] = {"pool": draw(global_pools)} if len(shape) == 3 else {}
    children |= {"flatten": spec.Flatten(), "fc": draw(linears(shape, count)), "act": draw(plain)}
    return spec.Sequential(children=children)


@st.composite
def convs(draw: st.DrawFn, shape: Shape) -> spec.Conv2d:
    """Return any convolution, with enough padding for small maps."""
    channels, *size = shape
    groups = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    kernel_size, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    extent = dilation * (kernel_size - 1) + 1
    least = max(0, -((min(size) - extent) // 2))
    width = groups * draw(st.integers(1, max(MAX_CHANNELS // groups, 1)))
    stride, padding = draw(st.integers(1, 3)), draw(st.integers(least, max(least, extent // 2 + 1)))
    kernel = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return spec.Conv2d(in_channels=channels, out_channels=width, bias=draw(st.booleans()), init=draw(inits), **kernel)


@st.composite
def projections(draw: st.DrawFn, shape: Shape, features: int, stride: int = 1) -> Node:
    """Return a layer to (features, ceil(H / stride), ceil(W / stride)), or from a vector to (features,)."""
    if len(shape) == 1:
        return draw(linears(shape, features))
    half, dilation = draw(st.integers(0, 2)), draw(st.integers(1, 2))
    groups = shape[0] if features == shape[0] and draw(st.booleans()) else 1
    kernel = {"kernel_size": 2 * half + 1, "padding": half * dilation, "dilation": dilation, "groups": groups}
    last = {"bias": draw(st.booleans()), "init": draw(inits)}
    return spec.Conv2d(in_channels=shape[0], out_channels=features, stride=stride, **kernel, **last)


ATTENTIONS: dict[str, dict[str, Any]] = {"eca": {}, "gc": {"fuse_add": True}, "ge": {"extent": 2}}
ATTENTIONS |= {"gct": {"mode": "l1"}, "coord": {}, "simam": {}, "triplet": {"kernel_size": 3}, "ema": {}, "sge": {}}
ATTENTIONS |= {"mrap": {}, "mhsa": {}, "agent": {"agent_num": 4}}


def attentions(shape: Shape) -> st.SearchStrategy[Node]:
    """Return an attention module; together they have all primitives that occur nowhere else."""
    return st.sampled_from([getattr(spec, name)(shape[0], **options) for name, options in ATTENTIONS.items()])


def linears(shape: Shape, features: int | None = None) -> st.SearchStrategy[spec.Linear]:
    out = widths if features is None else st.just(features)
    return st.builds(spec.Linear, in_features=st.just(shape[0]), out_features=out, bias=st.booleans(), init=inits)


def rnns(shape: Shape) -> st.SearchStrategy[spec.RNN]:
    return st.builds(spec.RNN, input_size=st.just(shape[0] * shape[2]), hidden_size=widths)


def batch_norms(shape: Shape) -> st.SearchStrategy[spec.BatchNorm2d]:
    """Return batch norm, also with the smallest and largest momentum."""
    settings = {"eps": st.sampled_from([1e-5, 1e-3]), "momentum": st.sampled_from([0.1, 0.0, 1.0])}
    return st.builds(spec.BatchNorm2d, num_features=st.just(shape[0]), **settings)


@st.composite
def max_pools(draw: st.DrawFn, shape: Shape) -> spec.MaxPool2d:
    """Return max pooling with any padding that is allowed and needed."""
    kernel_size = draw(st.integers(1, 4))
    least = max(0, -((min(shape[1:]) - kernel_size) // 2))
    padding = draw(st.integers(least, kernel_size // 2))
    return spec.MaxPool2d(kernel_size=kernel_size, stride=draw(st.none() | st.integers(1, 3)), padding=padding)


def avg_pools(shape: Shape) -> st.SearchStrategy[spec.AvgPool2d]:
    """Return average pooling with windows that overlap, touch or leave gaps, also with padding."""
    sizes = st.integers(1, min(4, *shape[1:]))
    pools = partial(st.builds, spec.AvgPool2d)
    strides = st.integers(1, 3)
    padded = sizes.flatmap(lambda k: pools(kernel_size=st.just(k), stride=strides, padding=st.integers(0, k // 2)))
    return pools(kernel_size=sizes, stride=st.none() | strides) | padded


@st.composite
def maams(draw: st.DrawFn, shape: Shape) -> Node:
    side, agents = min(shape[1:]), draw(st.integers(1, 3))
    pool = draw(st.sampled_from([p for p in ((1,), (2,), (3,), (1, 2), (2, 1), (2, 2)) if prod(p) <= side]))
    scales = st.integers(1, min(3, side // prod(pool)))
    kernels = st.sampled_from([1, 3, 5])
    return spec.maam(
        shape[0],
        draw(st.none() | widths),
        hidden_channels=draw(st.none() | widths),
        num_agents=agents,
        kernel_sizes=draw(kernels | st.tuples(*[kernels] * agents)),
        scales=draw(scales | st.tuples(*[scales] * agents)),
        pool=pool,
        fusion=draw(st.sampled_from(["softmax", "mean", "dynamic"])),
        reduce=draw(st.booleans()),
        depthwise=draw(st.booleans()),
        act_layer=draw(st.sampled_from(get_args(ElementwiseName))),
        norm_layer=draw(st.sampled_from(["batch_norm", "identity"])),
    )
