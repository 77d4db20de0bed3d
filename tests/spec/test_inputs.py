"""The input rule of a spec: never stricter than the layers, with readable messages."""

import pytest

from maam.errors import ShapeError
from maam.spec import (
    RNN,
    Activation,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Flatten,
    GlobalPool,
    Identity,
    Linear,
    MaxPool2d,
    Model,
    Parallel,
    Residual,
    Sequential,
    input_rule,
    list_presets,
    maam,
    preset,
)

ANY = (None, None, 1, None)


def chain(**children):
    return Sequential(children=children)


def linear(features):
    return Linear(in_features=features, out_features=2)


RELU = Activation(function="relu")
CONV = Conv2d(in_channels=3, out_channels=4, kernel_size=5)
POOLED = Model(name="any size", input_shape=(3, 9, 9), children={"conv": CONV, "pool": GlobalPool(), "f": Flatten()})
DOUBLE = Parallel(children={"a": Identity(), "b": Identity()}, merge="concat")
OVER_CHANNELS = GlobalPool(axis="channels")
SMALL = Conv2d(in_channels=1, out_channels=4, kernel_size=5)
FROM_5 = "(N, 3, H, W) with H, W >= 5"

RULES = [
    (preset("maam_cifar10"), (4, 3, 1, (32, 32)), "(N, 3, 32, 32)"),
    (preset("rnn", in_channels=1, image_size=8), (4, 1, 1, (8, 8)), "(N, 1, 8, 8)"),
    (POOLED, (4, 3, 5, None), "(N, 3, H, W) with H, W >= 5"),
    (maam(8), (4, 8, 1, None), "(N, 8, H, W)"),
    (maam(8, pool=(2, 2)), (4, 8, 4, None), "(N, 8, H, W) with H, W >= 4"),
    (maam(8, pool=2, scales=(1, 3, 2)), (4, 8, 6, None), "(N, 8, H, W) with H, W >= 6"),
    (maam(8, fusion="dynamic"), (4, 8, 1, None), "(N, 8, H, W)"),
    (CONV, (4, 3, 5, None), "(N, 3, H, W) with H, W >= 5"),
    (MaxPool2d(kernel_size=3, padding=1), (4, None, 1, None), "(N, C, H, W)"),
    (AvgPool2d(kernel_size=2), (4, None, 2, None), "(N, C, H, W) with H, W >= 2"),
    (linear(6), (2, 6, 1, None), "(N, 6)"),
    (chain(act=RELU, fc=linear(6)), (2, 6, 1, None), "(N, 6)"),
    (Residual(children={"fc": linear(2)}), (2, 2, 1, None), "(N, 2)"),
    (chain(pool=GlobalPool(), flatten=Flatten(), fc=linear(6)), (4, 6, 1, None), "(N, 6, H, W)"),
    # every rank and size is valid, or channels and size depend on each other
    (chain(act=RELU), ANY, "(N, C) or (N, C, H, W)"),
    (chain(flatten=Flatten(), fc=linear(48)), ANY, "(N, C) or (N, C, H, W)"),
    (chain(conv=CONV, flatten=Flatten(), fc=linear(16)), (4, None, 1, None), "(N, C, H, W)"),
    (chain(rnn=RNN(input_size=12, hidden_size=6), fc=linear(6)), (4, None, 1, None), "(N, C, H, W)"),
    (chain(rnn=RNN(input_size=12, hidden_size=7), fc=linear(7)), ANY, "(N, C) or (N, C, H, W)"),
    (chain(both=DOUBLE, bn=BatchNorm2d(num_features=6)), (4, 3, 1, None), "(N, 3, H, W)"),
    (chain(pool=OVER_CHANNELS, bn=BatchNorm2d(num_features=1)), (4, None, 1, None), "(N, C, H, W)"),
    (Parallel(children={"a": chain(pool=OVER_CHANNELS, conv=SMALL), "b": CONV}), (4, 3, 5, None), FROM_5),
]


ANY_SIZE = [*list_presets("m[ao][fb]*_v*"), "maam_imagenet"]
"""Presets with global pooling, which accept images of any size."""


@pytest.mark.parametrize(("spec", "rule", "text"), RULES)
def test_rules(spec, rule, text):
    assert tuple(input_rule(spec)) == rule
    assert input_rule(spec).describe() == text


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        (chain(rnn=RNN(input_size=12, hidden_size=6), fc=linear(6)), (3, 7, 4)),
        (RNN(input_size=12, hidden_size=6), (2, 1, 6)),
        (chain(flatten=Flatten(), fc=linear(48)), (3, 4, 4)),
        (chain(flatten=Flatten(), fc=linear(48)), (48,)),
        (chain(both=DOUBLE, bn=BatchNorm2d(num_features=6)), (3, 5, 5)),
        (chain(pool=MaxPool2d(kernel_size=3, padding=1), flatten=Flatten(), fc=linear(2)), (1, 1, 4)),
        (chain(conv=CONV, flatten=Flatten(), fc=linear(16)), (3, 5, 8)),
        (AvgPool2d(kernel_size=600), (1, 600, 600)),
        (chain(act=RELU), (5,)),
        (chain(act=RELU), (5, 2, 3)),
        (chain(pool=OVER_CHANNELS, bn=BatchNorm2d(num_features=1)), (7, 2, 3)),
    ],
)
def test_rules_accept_all_inputs_of_the_spec(spec, shape):
    spec.output_shape(shape)
    assert input_rule(spec).accepts((2, *shape))
    input_rule(spec).check((2, *shape))


@pytest.mark.parametrize("name", sorted(set(list_presets()) - set(ANY_SIZE)))
def test_presets_accept_only_their_input_shape(name):
    model = preset(name)
    channels, height, width = model.input_shape
    rule = input_rule(model)
    assert rule.accepts((1, channels, height, width))
    assert rule.accepts((64, channels, height, width))
    for wrong in [(channels, height, width), (1, channels + 1, height, width), (1, channels, height, width + 1)]:
        assert not rule.accepts(wrong)


def test_least_sizes():
    rule = input_rule(maam(8, pool=(2, 2)))
    assert rule.accepts((1, 8, 4, 5))
    assert not rule.accepts((1, 8, 3, 5))
    assert not rule.accepts((1, 8, 5, 3))
    assert not rule.accepts((1, 7, 5, 5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((3, 32, 32),), "expected an input (N, 3, 32, 32), got 3 dimensions: (3, 32, 32)"),
        (((1, 3, 28, 32),), "expected an input (N, 3, 32, 32), got (1, 3, 28, 32)"),
        (((1, 32, 32, 3),), "expected an input (N, 3, 32, 32), got (1, 32, 32, 3)"),
        (((1, 3, 32, 32), "uint8"), "expected a floating-point input (N, 3, 32, 32), got uint8; convert it"),
        (
            ((1, 3, 32, 32), "float64", "float32"),
            "expected an input of dtype float32, the dtype of the parameters, got float64",
        ),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ShapeError) as error:
        input_rule(preset("cnn")).check(*arguments)
    assert message in str(error.value)
    assert error.value.path == ""


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes(dtype):
    rule = input_rule(preset("cnn"))
    rule.check((1, 3, 32, 32), dtype)
    rule.check((1, 3, 32, 32), dtype, dtype)


def test_vectors():
    rule = input_rule(linear(6))
    rule.check((4, 6))
    with pytest.raises(ShapeError, match=r"expected an input \(N, 6\), got \(4, 5\)"):
        rule.check((4, 5))
    with pytest.raises(ShapeError, match=r"expected an input \(N, 6\), got 4 dimensions: \(4, 6, 1, 1\)"):
        rule.check((4, 6, 1, 1))
