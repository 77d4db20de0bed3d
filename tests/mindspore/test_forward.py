"""Outputs and running statistics of layers and models against the referee, in both modes and both states."""

from functools import partial

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from maam import spec
from maam.mindspore import MAAM, build
from maam.mindspore.arrays import read_arrays
from maam.reference import build as build_referee

FUNCTIONS = ["relu6", "leaky_relu", "elu", "silu", "hard_swish", "sigmoid", "hard_sigmoid", "tanh", "identity"]
pytestmark = pytest.mark.usefixtures("mode")


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def check(cell, judge, x, training):
    """One call each; the running statistics must have moved in training state, and only there."""
    before = read_arrays(cell)
    close(cell.set_train(training)(ms.Tensor(x)).asnumpy(), judge(x, training=training))
    after = read_arrays(cell)
    moved = {name for name, array in after.items() if not np.array_equal(array, before[name])}
    statistics = {p.name for p in cell.spec.parameters() if not p.trainable}
    assert moved == (statistics if training else set())
    for name in statistics:
        np.testing.assert_allclose(after[name], judge.arrays[name], rtol=1e-5, atol=1e-6)


def test_variants(cell, referee, x):
    judge = referee(cell)
    for training in (False, True, False):
        check(cell, judge, x, training)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_activations(function, referee, scramble, x):
    cell = scramble(build(spec.maam(4, num_agents=1, act_layer=function)))
    check(cell, referee(cell), 4 * x, True)  # beyond the bends of relu6 and hard_swish


def test_every_array_counts(cell, referee, x):
    """Or the comparison with the referee could not notice that one is wrong."""
    judge, generator = referee(cell), np.random.default_rng(3)
    expected = judge(x)
    for name, array in judge.arrays.items():
        judge.arrays[name] = array + generator.uniform(0, 0.2, array.shape)
        assert np.abs(judge(x) - expected).max() > 1e-3, name
        judge.arrays[name] = array


@pytest.mark.parametrize("size", [(1, 7, 5), (3, 3, 11)], ids=str)
def test_odd_sizes(size, referee, scramble):
    x = np.random.default_rng(2).normal(size=(size[0], 4, *size[1:])).astype(np.float32)
    cell = scramble(build(spec.maam(4, 8, scales=(1, 2, 3))))
    check(cell, referee(cell), x, False)


CLASSIFIERS = {
    "dynamic": spec.preset("maam_digits", fusion="dynamic"),
    "t_cnn": spec.preset("t_cnn", base="maam_digits", pool=(2, 2)),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_seeded_classifier(name):
    node = CLASSIFIERS[name]
    x = np.random.default_rng(3).uniform(size=(4, 1, 8, 8)).astype(np.float32)
    check(build(node, seed=4), build_referee(node, seed=4), x, True)


@pytest.mark.parametrize("name", ["cnn", "mlp", "rnn"])
def test_baselines(name):
    node = spec.preset(name, image_size=8)
    x = np.random.default_rng(3).uniform(size=(2, 3, 8, 8)).astype(np.float32)
    check(build(node, seed=4), build_referee(node, seed=4), x, False)


PRIMITIVES = spec.Sequential(
    children={
        "conv": spec.Conv2d(in_channels=4, out_channels=6, kernel_size=3, stride=2, padding=2, dilation=2, groups=2),
        "pool": spec.MaxPool2d(kernel_size=3, stride=1, padding=1),
        "join": spec.Parallel(
            children={"a": spec.Identity(), "b": spec.AvgPool2d(kernel_size=1), "c": spec.Dropout(p=0.5)},
            merge="concat",
        ),
        "average": spec.AvgPool2d(kernel_size=2, stride=1),
        "gate": spec.Scale(
            children={
                "squeeze": spec.GlobalPool(function="max"),
                "conv": spec.Conv2d(in_channels=18, out_channels=18, kernel_size=1, groups=18),
                "act": spec.Activation(function="leaky_relu", negative_slope=0.3),
            }
        ),
        "skip": spec.Residual(children={"act": spec.Activation(function="softmax")}),
        "sum": spec.Parallel(children={"a": spec.GlobalPool(), "b": spec.GlobalPool(function="max")}),
        "flatten": spec.Flatten(),
        "fc": spec.Linear(in_features=18, out_features=3, bias=False),
        "weighted": spec.Parallel(
            children={"a": spec.Identity(), "b": spec.Activation(function="elu")}, merge="weighted", weights=(0.7, 2)
        ),
    }
)


def test_primitives(referee, scramble, x):
    cell = scramble(build(PRIMITIVES))
    check(cell, referee(cell), x, False)


@pytest.mark.parametrize(
    "make",
    [partial(MAAM, num_agents=1), lambda channels: build(spec.maam(channels, num_agents=1))],
    ids=["layer", "build"],
)
def test_train_state_after_a_call_in_the_initial_state(make, referee, scramble, x):
    layer = scramble(make(4))
    judge = referee(layer)
    close(layer(ms.Tensor(x)).asnumpy(), judge(x))
    layer.set_train()
    close(layer(ms.Tensor(x)).asnumpy(), judge(x, training=True))


def test_inside_other_cells(network, referee, scramble, x):
    layer = scramble(MAAM(4, 8, num_agents=2, scales=(1, 2)))
    net = network(layer)
    chain = nn.SequentialCell(net.stem, layer, net.act)
    inner = net.stem(ms.Tensor(x)).asnumpy()
    for outer, training in ((net, True), (chain, False)):
        expected = np.maximum(referee(layer)(inner, training=training), 0)
        close(outer.set_train(training)(ms.Tensor(x)).asnumpy(), expected)


def test_two_layers_in_one_network(referee, scramble, x):
    first, second = scramble(MAAM(4, 8, num_agents=1)), scramble(MAAM(8, 4, num_agents=2, fusion="mean"))
    net = nn.SequentialCell(first, second)
    close(net.set_train(False)(ms.Tensor(x)).asnumpy(), referee(second)(referee(first)(x)))
