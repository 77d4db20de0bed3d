"""Shapes: the errors of layers for shapes that do not fit, and the input rule of a spec, never stricter than these."""

import pytest

from maam import spec
from maam.errors import ShapeError
from maam.spec import Rearrange, input_rule, maam, preset
from tests.spec.nodes import FLATTEN, IDENTITY, POOL, RELU, chain, conv, graph, linear, model, norm, residual


def two(merge):
    return spec.Parallel(children={"a": IDENTITY, "b": HALF}, merge=merge)


def dynamic(branch):
    return spec.Parallel(children={"a": branch}, merge="dynamic", weighting=chain(flatten=FLATTEN, fc=linear(6)))


CONV, CONV_1D = conv(3, padding=0), spec.Conv1d(in_channels=1, out_channels=1, kernel_size=3)
HALF, MAX_POOL = spec.MaxPool2d(kernel_size=2), spec.MaxPool2d(kernel_size=3, padding=1)
RNN = spec.RNN(input_size=12, hidden_size=6)
NO_MAP = "expected a feature map (C, H, W), got shape"
ADDS = "a residual adds the output of its layers to its input: expected an output of shape"
SAME = "expected maps of the same shape, or of size 1 along an axis, got"
ERRORS = [
    (CONV, (4, 8, 8), "expected 3 channels, got 4"),
    (CONV, (3, 8), f"{NO_MAP} (3, 8)"),
    (CONV, (3, 2, 8), "a map of 2x8 is too small for a window of 3x3; use a larger input"),
    (conv(3, dilation=3), (3, 8, 4), "a map of 8x4 padded by 1 is too small for a window of 7x7"),
    (CONV_1D, (1, 2), "a sequence of 2 is too short for a window of 3"),
    (CONV_1D, (2, 5), "expected a sequence (1, L), got shape (2, 5)"),
    (norm(3), (2, 1, 1), "expected 3 channels, got 2"),
    (norm(3), (3,), f"{NO_MAP} (3,)"),
    (spec.GroupNorm(num_groups=2, num_channels=4), (6, 2, 2), "expected 4 channels, got 6"),
    (HALF, (3, 1, 9), "a map of 1x9 is too small for a window of 2x2"),
    (spec.AvgPool2d(kernel_size=5), (3, 5, 4), "a map of 5x4 is too small for a window of 5x5"),
    (POOL, (3,), f"{NO_MAP} (3,)"),
    (POOL, (3, 0, 4), f"{NO_MAP} (3, 0, 4)"),
    (linear(6), (5,), "expected a vector of 6 features, got shape (5,)"),
    (linear(6), (6, 1, 1), "expected a vector of 6 features, got shape (6, 1, 1)"),
    (RNN, (3, 4, 5), "expected rows of 12 values, got 3 x 5"),
    (RNN, (12,), f"{NO_MAP} (12,)"),
    (spec.Softmax(axis="spatial"), (4,), f"{NO_MAP} (4,)"),
    (spec.TopK(k=5), (4, 1, 1), "expected at least 5 channels, got shape (4, 1, 1)"),
    (residual(pool=HALF), (3, 4, 4), f"{ADDS} (3, 4, 4), got (3, 2, 2)"),
    (spec.Scale(children={"pool": HALF}), (3, 4, 4), "a gate of shape (3, 2, 2) does not broadcast over a map of sha"),
    (spec.Scale(children={"flatten": FLATTEN}), (3, 1, 1), "a gate of shape (3,) does not broadcast"),
    (spec.Resize(children={}, stride=3), (3, 9, 2), "a map of 9x2 is too small for a stride of 3"),
    (spec.Resize(children={"flatten": FLATTEN}), (3, 9, 9), f"{NO_MAP} (243,)"),
    (two("sum"), (1, 4, 4), f"{SAME} [(1, 4, 4), (1, 2,"),
    (two("softmax"), (1, 4, 4), "merge 'softmax': expected branches of the same output shape"),
    (two("concat"), (1, 4, 4), "branches cannot be concatenated along axis 0 of (C, H, W): [(1, 4, 4), (1, 2, 2)]"),
    (dynamic(HALF), (3, 1, 2), "a: a map of 1x2 is too small"),
    (dynamic(IDENTITY), (3, 1, 2), "weighting: expected an output of shape (1,), got (2,)"),
    (dynamic(IDENTITY), (3, 1, 1), "weighting.fc: expected a vector of 6"),
    (chain(conv1=CONV, pool=HALF), (3, 3, 3), "pool: a map of 1x1 is too small"),
    (chain(body=residual(gate=CONV)), (3, 8, 8), f"body: {ADDS} (3, 8, 8), got (4, 6,"),
    (chain(body=residual(gate=linear(6))), (3, 8, 8), "body.gate: expected a vector of 6 features, got shape (3, 8"),
    (maam(4, pool=(1, 2)), (4, 1, 8), "agents.0.pool2: a map of 1x8 is too small for a window of 2x2"),
    (maam(4, scales=(1, 1, 3)), (4, 2, 2), "agents.2.scale: a map of 2x2 is too small for a window of 3x3"),
    (graph("x * weight"), (3, 2, 2), f"{SAME} [(3, 2, 2), (4, "),
    (graph("x * flat(x)", flat=FLATTEN), (4, 2, 2), "values of shapes (4, 2, 2), (16,) cannot be combined"),
    (graph("x[0:5] * 2"), (4, 2, 2), "expected at least 5 channels, got shape (4, 2, 2)"),
    (graph("unfold(fold(x, 3), 3)"), (4, 2, 2), "3 groups do not divide 4 channels"),
    (graph("x @ x"), (4, 2, 3), "a matrix product of shapes (4, 2, 3) and (4, 2, 3) does not exist"),
    (graph("like(x, mean(x))", mean=POOL), (4, 2, 2), "a value of shape (4, 2, 2) cannot have shape (4, 1, 1)"),
    (graph("last(mean(x), x)", mean=POOL), (4, 2, 2), "a value of shape (4, 1, 1) has fewer rows than one of shape (4"),
    (graph("conv(x) * 2", conv=CONV), (4, 2, 2), "conv: expected 3 channels, got 4"),
    (graph("x * 2").replace(in_channels=3), (4, 2, 2), "expected 3 channels, got shape (4, 2, 2)"),
    (Rearrange(pattern="c h -> h c"), (4, 2, 2), "expected 2 axes for a rearrangement, got shape (4, 2, 2)"),
    (Rearrange(pattern="(g=3 c) h w -> c (g h) w"), (4, 2, 2), "an axis of size 4 does not fit (g c) of a rearr"),
    (Rearrange(pattern="c 1 1 -> c"), (4, 2, 2), "an axis of size 2 does not fit (1) of a rearrangement"),
]


@pytest.mark.parametrize(("node", "shape", "message"), ERRORS)
def test_errors(node, shape, message):
    with pytest.raises(ShapeError) as error:
        node.output_shape(shape)
    assert str(error.value).startswith(message)
    assert str(error.value) == (f"{error.value.path}: " if error.value.path else "") + error.value.reason


CONV_5 = conv(3, 4, 5, padding=0)
OVER_CHANNELS = spec.GlobalPool(axis="channels")
DOUBLE = spec.Parallel(children={"a": IDENTITY, "b": IDENTITY}, merge="concat")
FLAT_FC = chain(FLATTEN, linear(48))
BESIDE = spec.Parallel(children={"a": chain(OVER_CHANNELS, conv(1, 4, 5, padding=0)), "b": CONV_5})
ANY = (None, None, 1, None), "(N, C) or (N, C, H, W)"
FROM_5 = (4, 3, 5, None), "(N, 3, H, W) with H, W >= 5"
ONE_MAP = (4, None, 1, None), "(N, C, H, W)"
RULES = [
    (preset("maam_cifar10"), (4, 3, 1, (32, 32)), "(N, 3, 32, 32)", (3, 32, 32)),
    (preset("rnn", in_channels=1, image_size=8), (4, 1, 1, (8, 8)), "(N, 1, 8, 8)", (1, 8, 8)),
    (model((3, 9, 9), conv=CONV_5, pool=POOL, flatten=FLATTEN), *FROM_5, (3, 5, 6)),
    (maam(8), (4, 8, 1, None), "(N, 8, H, W)", (8, 1, 1)),
    (maam(8, pool=(2, 2)), (4, 8, 4, None), "(N, 8, H, W) with H, W >= 4", (8, 4, 5)),
    (maam(8, pool=2, scales=(1, 3, 2)), (4, 8, 6, None), "(N, 8, H, W) with H, W >= 6", (8, 6, 6)),
    (maam(8, fusion="dynamic"), (4, 8, 1, None), "(N, 8, H, W)", (8, 1, 2)),
    (CONV_5, *FROM_5, (3, 9, 5)),
    (spec.GroupNorm(num_groups=2, num_channels=6), (4, 6, 1, None), "(N, 6, H, W)", (6, 1, 1)),
    (MAX_POOL, *ONE_MAP, (5, 1, 4)),
    (chain(MAX_POOL, FLATTEN, linear(2)), *ONE_MAP, (1, 1, 4)),
    (spec.AvgPool2d(kernel_size=2), (4, None, 2, None), "(N, C, H, W) with H, W >= 2", (7, 2, 3)),
    (spec.AvgPool2d(kernel_size=600), *ANY, (1, 600, 600)),
    (linear(6), (2, 6, 1, None), "(N, 6)", (6,)),
    (chain(RELU, linear(6)), (2, 6, 1, None), "(N, 6)", (6,)),
    (residual(fc=linear(2)), (2, 2, 1, None), "(N, 2)", (2,)),
    (chain(POOL, FLATTEN, linear(6)), (4, 6, 1, None), "(N, 6, H, W)", (6, 1, 1)),
    (chain(RELU), *ANY, (5,)),
    (chain(RELU), *ANY, (5, 2, 3)),
    # every rank and size is valid, or channels and size depend on each other
    (FLAT_FC, *ANY, (3, 4, 4)),
    (FLAT_FC, *ANY, (48,)),
    (chain(CONV_5, FLATTEN, linear(16)), *ONE_MAP, (3, 5, 8)),
    (RNN, *ONE_MAP, (2, 1, 6)),
    (chain(RNN, linear(6)), *ONE_MAP, (3, 7, 4)),
    (chain(RNN.replace(hidden_size=7), linear(7)), *ANY, (3, 2, 4)),
    (chain(DOUBLE, norm(6)), (4, 3, 1, None), "(N, 3, H, W)", (3, 5, 5)),
    (chain(OVER_CHANNELS, norm(1)), *ONE_MAP, (7, 2, 3)),
    (BESIDE, *FROM_5, (3, 5, 5)),
]


@pytest.mark.parametrize(("node", "rule", "text", "shape"), RULES)
def test_rules_accept_all_inputs_of_the_spec(node, rule, text, shape):
    node.output_shape(shape)
    found = input_rule(node)
    assert tuple(found) == rule
    assert found.describe() == text
    assert found.accepts((2, *shape))
    found.check((2, *shape))
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        found.check((2, *shape), dtype)
        found.check((2, *shape), dtype, dtype)


ANY_SIZE = {"maam_imagenet", *spec.list_presets("m[ao][fb]*_v*"), *spec.list_presets("maam_net*")}
"""Networks with global pooling."""


@pytest.mark.parametrize("name", sorted(set(spec.list_presets()) - ANY_SIZE))
def test_shapes_that_are_not_accepted(name):
    rule, (channels, height, width) = input_rule(preset(name)), preset(name).input_shape
    assert all(rule.accepts((count, channels, height, width)) for count in (1, 64))
    for wrong in [(channels, height, width), (1, channels + 1, height, width), (1, channels, height, width + 1)]:
        assert not rule.accepts(wrong)


AT_LEAST_4 = maam(8, pool=(2, 2))
REFUSED = [
    (preset("cnn"), ((3, 32, 32),), "expected an input (N, 3, 32, 32), got 3 dimensions: (3, 32, 32)"),
    (preset("cnn"), ((1, 3, 28, 32),), "expected an input (N, 3, 32, 32), got (1, 3, 28, 32)"),
    (preset("cnn"), ((1, 32, 32, 3),), "expected an input (N, 3, 32, 32), got (1, 32, 32, 3)"),
    *((AT_LEAST_4, (shape,), f", got {shape}") for shape in [(1, 8, 3, 5), (1, 8, 5, 3), (1, 7, 5, 5)]),
    (linear(6), ((4, 5),), "expected an input (N, 6), got (4, 5)"),
    (linear(6), ((4, 6, 1, 1),), "expected an input (N, 6), got 4 dimensions: (4, 6, 1, 1)"),
    (linear(6), ((1, 6), "uint8"), "input (N, 6), got uint8; convert it and scale images to [0, 1]"),
    (CONV, ((1, 3, 9, 9), "float64", "float32"), "of dtype float32, the dtype of the parameters, got float64"),
]


@pytest.mark.parametrize(("node", "arguments", "message"), REFUSED)
def test_refusals(node, arguments, message):
    with pytest.raises(ShapeError) as error:
        input_rule(node).check(*arguments)
    assert message in str(error.value)
    assert error.value.path == ""
    assert input_rule(node).accepts(arguments[0]) == (len(arguments) > 1)  # whatever the dtype
