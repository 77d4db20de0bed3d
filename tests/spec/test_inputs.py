"""The input rule of a spec: never stricter than the layers, with readable messages."""

import pytest

from maam import spec
from maam.errors import ShapeError
from maam.spec import input_rule, maam, preset

ANY = (None, None, 1, None), "(N, C) or (N, C, H, W)"
FROM_5 = (4, 3, 5, None), "(N, 3, H, W) with H, W >= 5"
ONE_MAP = (4, None, 1, None), "(N, C, H, W)"


def chain(**children):
    return spec.Sequential(children=children)


def linear(features):
    return spec.Linear(in_features=features, out_features=2)


RELU, FLATTEN, POOL = spec.Activation(function="relu"), spec.Flatten(), spec.GlobalPool()
CONV = spec.Conv2d(in_channels=3, out_channels=4, kernel_size=5)
POOLED = spec.Model(name="any size", input_shape=(3, 9, 9), children={"conv": CONV, "pool": POOL, "f": FLATTEN})
DOUBLE = spec.Parallel(children={"a": spec.Identity(), "b": spec.Identity()}, merge="concat")
MAX_POOL = spec.MaxPool2d(kernel_size=3, padding=1)
OVER_CHANNELS = spec.GlobalPool(axis="channels")
SMALL = spec.Conv2d(in_channels=1, out_channels=4, kernel_size=5)
RNN = spec.RNN(input_size=12, hidden_size=6)
# Every rank and size is valid, or channels and size depend on each other:
NORMED = chain(both=DOUBLE, bn=spec.BatchNorm2d(num_features=6))
ONE_CHANNEL = chain(pool=OVER_CHANNELS, bn=spec.BatchNorm2d(num_features=1))
FLAT_CONV = chain(conv=CONV, flatten=FLATTEN, fc=linear(16))
ROWS = chain(rnn=RNN, fc=linear(6))

RULES = [
    (preset("maam_cifar10"), (4, 3, 1, (32, 32)), "(N, 3, 32, 32)"),
    (preset("rnn", in_channels=1, image_size=8), (4, 1, 1, (8, 8)), "(N, 1, 8, 8)"),
    (POOLED, *FROM_5),
    (maam(8), (4, 8, 1, None), "(N, 8, H, W)"),
    (maam(8, pool=(2, 2)), (4, 8, 4, None), "(N, 8, H, W) with H, W >= 4"),
    (maam(8, pool=2, scales=(1, 3, 2)), (4, 8, 6, None), "(N, 8, H, W) with H, W >= 6"),
    (maam(8, fusion="dynamic"), (4, 8, 1, None), "(N, 8, H, W)"),
    (CONV, *FROM_5),
    (MAX_POOL, *ONE_MAP),
    (spec.AvgPool2d(kernel_size=2), (4, None, 2, None), "(N, C, H, W) with H, W >= 2"),
    (linear(6), (2, 6, 1, None), "(N, 6)"),
    (chain(act=RELU, fc=linear(6)), (2, 6, 1, None), "(N, 6)"),
    (spec.Residual(children={"fc": linear(2)}), (2, 2, 1, None), "(N, 2)"),
    (chain(pool=POOL, flatten=FLATTEN, fc=linear(6)), (4, 6, 1, None), "(N, 6, H, W)"),
    (chain(act=RELU), *ANY),
    (chain(flatten=FLATTEN, fc=linear(48)), *ANY),
    (FLAT_CONV, *ONE_MAP),
    (ROWS, *ONE_MAP),
    (chain(rnn=spec.RNN(input_size=12, hidden_size=7), fc=linear(7)), *ANY),
    (NORMED, (4, 3, 1, None), "(N, 3, H, W)"),
    (ONE_CHANNEL, *ONE_MAP),
    (spec.Parallel(children={"a": chain(pool=OVER_CHANNELS, conv=SMALL), "b": CONV}), *FROM_5),
]
ANY_SIZE = {
    *spec.list_presets("m[ao][fb]*_v*"),
    *spec.list_presets("maam_net*"),
    "maam_imagenet",
}  # with global pooling


@pytest.mark.parametrize(("node", "rule", "text"), RULES)
def test_rules(node, rule, text):
    assert tuple(input_rule(node)) == rule
    assert input_rule(node).describe() == text


@pytest.mark.parametrize(
    ("node", "shape"),
    [
        (ROWS, (3, 7, 4)),
        (RNN, (2, 1, 6)),
        (chain(flatten=FLATTEN, fc=linear(48)), (3, 4, 4)),
        (chain(flatten=FLATTEN, fc=linear(48)), (48,)),
        (NORMED, (3, 5, 5)),
        (chain(pool=MAX_POOL, flatten=FLATTEN, fc=linear(2)), (1, 1, 4)),
        (FLAT_CONV, (3, 5, 8)),
        (spec.AvgPool2d(kernel_size=600), (1, 600, 600)),
        (chain(act=RELU), (5,)),
        (chain(act=RELU), (5, 2, 3)),
        (ONE_CHANNEL, (7, 2, 3)),
    ],
)
def test_rules_accept_all_inputs_of_the_spec(node, shape):
    node.output_shape(shape)
    assert input_rule(node).accepts((2, *shape))
    input_rule(node).check((2, *shape))
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        input_rule(node).check((2, *shape), dtype)
        input_rule(node).check((2, *shape), dtype, dtype)


def test_shapes_that_are_not_accepted():
    for model in map(preset, set(spec.list_presets()) - ANY_SIZE):
        channels, height, width = model.input_shape
        rule = input_rule(model)
        assert rule.accepts((1, channels, height, width))
        assert rule.accepts((64, channels, height, width))
        for wrong in [(channels, height, width), (1, channels + 1, height, width), (1, channels, height, width + 1)]:
            assert not rule.accepts(wrong)
    rule = input_rule(maam(8, pool=(2, 2)))
    assert rule.accepts((1, 8, 4, 5))
    assert not any(rule.accepts(shape) for shape in [(1, 8, 3, 5), (1, 8, 5, 3), (1, 7, 5, 5)])


MIXED = "of dtype float32, the dtype of the parameters, got float64"


@pytest.mark.parametrize(
    ("node", "arguments", "message"),
    [
        (preset("cnn"), ((3, 32, 32),), "expected an input (N, 3, 32, 32), got 3 dimensions: (3, 32, 32)"),
        (preset("cnn"), ((1, 3, 28, 32),), "expected an input (N, 3, 32, 32), got (1, 3, 28, 32)"),
        (preset("cnn"), ((1, 32, 32, 3),), "expected an input (N, 3, 32, 32), got (1, 32, 32, 3)"),
        (preset("cnn"), ((1, 3, 32, 32), "uint8"), "a floating-point input (N, 3, 32, 32), got uint8; convert it"),
        (preset("cnn"), ((1, 3, 32, 32), "float64", "float32"), f"expected an input {MIXED}"),
        (linear(6), ((4, 5),), "expected an input (N, 6), got (4, 5)"),
        (linear(6), ((4, 6, 1, 1),), "expected an input (N, 6), got 4 dimensions: (4, 6, 1, 1)"),
    ],
)
def test_refusals(node, arguments, message):
    with pytest.raises(ShapeError) as error:
        input_rule(node).check(*arguments)
    assert message in str(error.value)
    assert error.value.path == ""
