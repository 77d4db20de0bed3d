"""The primitives in NumPy, against sums written by hand."""

import math
from typing import get_args

import numpy as np
import pytest

from maam.reference import functions
from maam.spec import Activation, Conv2d, GlobalPool
from maam.spec.primitives import CURVES, ActivationName

RANDOM = np.random.default_rng(0)


def normal(*shape):
    return RANDOM.normal(size=shape)


def test_linear():
    x, weight, bias = normal(3, 4), normal(2, 4), normal(2)
    expected = np.array([[sum(row[i] * weight[out, i] for i in range(4)) for out in range(2)] for row in x])
    np.testing.assert_allclose(functions.linear(x, weight, bias), expected + bias, rtol=1e-14, atol=1e-12)
    np.testing.assert_allclose(functions.linear(x, weight, None), expected, rtol=1e-14, atol=1e-12)


def test_rnn():
    x, weight_ih, weight_hh, bias_ih, bias_hh = normal(2, 3, 4, 5), normal(6, 15) / 4, normal(6, 6) / 3, *normal(2, 6)
    y = functions.rnn(x, weight_ih, weight_hh, bias_ih, bias_hh)
    for n in range(2):
        state = np.zeros(6)
        for t in range(4):
            row = np.concatenate([x[n, c, t] for c in range(3)])
            sums = [weight_ih[h] @ row + bias_ih[h] + weight_hh[h] @ state + bias_hh[h] for h in range(6)]
            state = np.array([math.tanh(value) for value in sums])
        np.testing.assert_allclose(y[n], state, rtol=1e-13)


def test_batch_norm():
    x, (weight, bias, mean), var = normal(2, 3, 4, 5), normal(3, 3), RANDOM.uniform(0.5, 2, 3)
    y = functions.batch_norm(x, weight, bias, mean, var, 1e-2)
    for n, c, i, j in np.ndindex(x.shape):
        expected = weight[c] * (x[n, c, i, j] - mean[c]) / math.sqrt(var[c] + 1e-2) + bias[c]
        assert y[n, c, i, j] == pytest.approx(expected, rel=1e-13)


def test_batch_statistics():
    x = np.array([[[[1.0, 2]], [[0, 0]]], [[[3, 6]], [[0, 4]]]])  # (2, 2, 1, 2)
    mean, biased, unbiased = functions.batch_statistics(x)
    assert mean.tolist() == [3, 1]
    assert biased.tolist() == [3.5, 3]
    np.testing.assert_allclose(unbiased, [14 / 3, 4], rtol=1e-15)
    assert [array.tolist() for array in functions.batch_statistics(np.full((1, 1, 1, 1), 5.0))] == [[5], [0], [0]]
    x = 1e8 + normal(4, 1, 50, 50)  # the mean of squares would lose all digits
    np.testing.assert_allclose(functions.batch_statistics(x)[2], x.var(ddof=1), rtol=1e-12)


X = np.array([-800.0, -7, -3, -1, -0.5, 0, 0.5, 1, 3, 6, 7, 800])
KNOWN = {"sigmoid": (math.log(3), 0.75), "gelu": (1.0, 0.8413447460685429), "elu": (-math.log(2), -0.5)}


def by_definition(name, x, slope):
    inner = min(max(x + 3, 0), 6) / 6
    sigmoid = 1 / (1 + math.exp(-x)) if x > -700 else 0.0
    return {
        "relu": max(x, 0),
        "relu6": min(max(x, 0), 6),
        "leaky_relu": x if x > 0 else slope * x,
        "elu": x if x > 0 else math.exp(x) - 1,
        "gelu": x * (1 + math.erf(x / math.sqrt(2))) / 2,
        "silu": x * sigmoid,
        "hard_swish": x * inner,
        "sigmoid": sigmoid,
        "hard_sigmoid": inner,
        "tanh": math.tanh(x),
        "identity": x,
        "abs": abs(x),
    }[name]


@pytest.mark.parametrize("slope", [0.01, 0.3])
@pytest.mark.parametrize("name", sorted({*functions.ACTIVATIONS, "leaky_relu"} - {"softmax"}))
def test_activations(name, slope):
    y = functions.activation(X, Activation(function=name, negative_slope=slope))
    np.testing.assert_allclose(y, [by_definition(name, x, slope) for x in X], rtol=1e-13, atol=1e-15)
    x, expected = KNOWN.get(name, (0.0, by_definition(name, 0.0, slope)))
    assert functions.activation(np.array([x]), Activation(function=name))[0] == pytest.approx(expected)


def test_every_activation_has_a_curve():
    assert CURVES.keys() == {*get_args(ActivationName)}
    assert not [name for name, curve in CURVES.items() if curve.smooth and CURVES[curve.smooth].kinks]


@pytest.mark.parametrize("name", sorted(CURVES.keys() - {"softmax"}))
def test_curves(name):
    node, points, step = Activation(function=name), np.arange(-8.0, 9.0), 1e-6
    before, at, after = (functions.activation(points + shift, node) for shift in (-step, 0.0, step))
    jumps = np.abs((after - at) - (at - before)) / step > 1e-3
    assert points[jumps].tolist() == sorted(CURVES[name].kinks)
    assert (at[points == 0] == 0).all() == CURVES[name].keeps_zero
    assert (functions.activation(2 * points, node) == 2 * at).all() == CURVES[name].homogeneous


@pytest.mark.parametrize("axis", [0, 1])
def test_softmax(axis):
    x = normal(3, 4, 2)
    powers = np.exp(x)
    np.testing.assert_allclose(functions.softmax(x, axis), powers / powers.sum(axis, keepdims=True), rtol=1e-14)
    assert functions.softmax(np.log([[1.0, 2, 5]])).tolist() == [pytest.approx([0.125, 0.25, 0.625])]
    assert functions.softmax(np.array([[1e4, -1e4, 1e4]])).tolist() == [[0.5, 0, 0.5]]


@pytest.mark.parametrize("p", [0.0, 0.25, 0.9])
def test_dropout(p):
    x = RANDOM.uniform(1, 2, (100, 200))
    y = functions.dropout(x, p, np.random.default_rng(1))
    kept = y != 0
    np.testing.assert_allclose(y[kept], x[kept] / (1 - p), rtol=1e-15)
    assert kept.mean() == pytest.approx(1 - p, abs=0.02)
    assert y.mean() == pytest.approx(x.mean(), rel=0.05)
    np.testing.assert_array_equal(y, functions.dropout(x, p, np.random.default_rng(1)))


def naive_conv(x, node, weight, bias):
    """Return the convolution as sums over the kernel for each output element, from the unpadded map."""
    n, _, height, width = x.shape
    shape = node.output_shape(x.shape[1:])
    y = np.zeros((n, *shape))
    per_input, per_output = node.in_channels // node.groups, node.out_channels // node.groups
    for index in np.ndindex(y.shape):
        image, out, top, left = index
        total = 0.0 if bias is None else bias[out]
        for c, i, j in np.ndindex(weight.shape[1:]):
            row = top * node.stride + i * node.dilation - node.padding
            column = left * node.stride + j * node.dilation - node.padding
            if 0 <= row < height and 0 <= column < width:
                total += weight[out, c, i, j] * x[image, out // per_output * per_input + c, row, column]
        y[index] = total
    return y


CONVS = [{"padding": 1}, {"kernel_size": 1}, {"kernel_size": 2, "stride": 2, "bias": False}]
CONVS += [{"stride": 2, "padding": 1}, {"padding": 2, "dilation": 2}, {"padding": 4, "dilation": 2, "stride": 3}]
CONVS += [{"padding": 1, "groups": 2}, {"kernel_size": 5, "padding": 3, "groups": 4, "bias": False}]


@pytest.mark.parametrize("fields", CONVS, ids=str)
def test_conv2d_against_loops(fields):
    node = Conv2d(in_channels=4, out_channels=8, **{"kernel_size": 3, **fields})
    x, weight, bias = normal(2, 4, 7, 6), normal(*node.weight_shape), normal(8) if node.bias else None
    y = functions.conv2d(x, node, weight, bias)
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, naive_conv(x, node, weight, bias), rtol=1e-13, atol=1e-13)


def test_conv2d_by_hand():
    node = Conv2d(in_channels=1, out_channels=1, kernel_size=3, padding=1)
    x = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    weight = np.array([[0.0, 1, 0], [2, 3, 4], [0, 5, 0]]).reshape(1, 1, 3, 3)
    y = functions.conv2d(x, node, weight, np.array([100.0]))
    # The middle: 1 * 2 + 2 * 4 + 3 * 5 + 4 * 6 + 5 * 8 = 89; the corner: 3 * 1 + 4 * 2 + 5 * 4 = 31.
    assert y[0, 0].tolist() == [[131, 145, 143], [168, 189, 176], [157, 179, 149]]


def naive_pool(x, size, stride, padding, function):
    rows, columns = ((side + 2 * padding - size) // stride + 1 for side in x.shape[2:])
    y = np.empty((*x.shape[:2], rows, columns))
    for row, column in np.ndindex(rows, columns):
        top, left = row * stride - padding, column * stride - padding
        window = x[:, :, max(top, 0) : top + size, max(left, 0) : left + size]
        y[:, :, row, column] = function(window, (2, 3))
    return y


def test_pooling_against_loops():
    x = normal(2, 3, 7, 8) - 10  # a padding of zeros would win
    for size, stride, padding in [(2, 2, 0), (3, 1, 1), (3, 2, 1), (2, 3, 1), (4, 1, 2)]:
        expected = naive_pool(x, size, stride, padding, np.max)
        np.testing.assert_array_equal(functions.max_pool2d(x, size, stride, padding), expected)
    for size, stride in [(2, 2), (3, 1), (3, 2), (2, 3), (1, 1)]:
        expected = naive_pool(x, size, stride, 0, np.mean)  # NumPy 1.24 adds in another order
        np.testing.assert_allclose(functions.avg_pool2d(x, size, stride), expected, rtol=1e-14, atol=1e-15)


def test_pooling_by_hand():
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    assert functions.max_pool2d(x, 2, 2, 0)[0, 0].tolist() == [[5, 7], [13, 15]]
    assert functions.avg_pool2d(x, 2, 2)[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    statistics = {"avg": 7.5, "max": 15.0, "sum": 120.0, "std": np.std(np.arange(16), ddof=1)}
    for function, value in statistics.items():
        assert functions.global_pool(x, GlobalPool(function=function)).tolist() == [[[[value]]]]
    pair = np.array([1.0, 4.0]).reshape(1, 2, 1, 1)
    for function, value in {"avg": 2.5, "std": math.sqrt(4.5)}.items():
        assert functions.global_pool(pair, GlobalPool(function=function, axis="channels")).tolist() == [[[[value]]]]


@pytest.mark.parametrize("size", [(3, 5), (2, 2), (7, 6), (1, 1), (14, 12), (4, 9)])
def test_resize_takes_the_source_at_the_floor(size):
    x = normal(2, 3, 7, 6)
    y = functions.resize(x, *size)
    assert y.shape == (2, 3, *size)
    for row, column in np.ndindex(size):
        source = x[:, :, int(row * 7 / size[0]), int(column * 6 / size[1])]
        np.testing.assert_array_equal(y[:, :, row, column], source)
