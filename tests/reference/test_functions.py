"""The referee's primitives without windows, against plain computations and known values."""

import math

import numpy as np
import pytest

from maam.reference import functions
from maam.spec import Activation

RANDOM = np.random.default_rng(0)


def test_linear():
    x, weight, bias = RANDOM.normal(size=(3, 4)), RANDOM.normal(size=(2, 4)), RANDOM.normal(size=2)
    y = functions.linear(x, weight, bias)
    for n, out in np.ndindex(3, 2):
        expected = sum(x[n, i] * weight[out, i] for i in range(4))
        assert y[n, out] == pytest.approx(expected + bias[out], rel=1e-14)
        assert functions.linear(x, weight, None)[n, out] == pytest.approx(expected, rel=1e-14)


def test_rnn():
    x = RANDOM.normal(size=(2, 3, 4, 5))
    weight_ih, weight_hh = RANDOM.normal(size=(6, 15)) / 4, RANDOM.normal(size=(6, 6)) / 3
    bias_ih, bias_hh = RANDOM.normal(size=6), RANDOM.normal(size=6)
    y = functions.rnn(x, weight_ih, weight_hh, bias_ih, bias_hh)
    for n in range(2):
        state = np.zeros(6)
        for t in range(4):
            row = np.concatenate([x[n, c, t] for c in range(3)])
            state = np.array(
                [
                    math.tanh(weight_ih[h] @ row + bias_ih[h] + weight_hh[h] @ state + bias_hh[h])  # of h_{t-1}
                    for h in range(6)
                ]
            )
        np.testing.assert_allclose(y[n], state, rtol=1e-13)


def test_batch_norm():
    x = RANDOM.normal(size=(2, 3, 4, 5))
    weight, bias, mean = RANDOM.normal(size=(3, 3))
    var = RANDOM.uniform(0.5, 2, 3)
    y = functions.batch_norm(x, weight, bias, mean, var, 1e-2)
    for n, c, i, j in np.ndindex(x.shape):
        expected = weight[c] * (x[n, c, i, j] - mean[c]) / math.sqrt(var[c] + 1e-2) + bias[c]
        assert y[n, c, i, j] == pytest.approx(expected, rel=1e-13)


def test_batch_statistics_by_hand():
    x = np.array([[[[1.0, 2]], [[0, 0]]], [[[3, 6]], [[0, 4]]]])  # (2, 2, 1, 2)
    mean, biased, unbiased = functions.batch_statistics(x)
    assert mean.tolist() == [3, 1]
    assert biased.tolist() == [3.5, 3]
    np.testing.assert_allclose(unbiased, [14 / 3, 4], rtol=1e-15)


def test_batch_statistics_of_one_value_and_of_a_large_mean():
    assert [array.tolist() for array in functions.batch_statistics(np.full((1, 1, 1, 1), 5.0))] == [[5], [0], [0]]
    x = 1e8 + RANDOM.normal(size=(4, 1, 50, 50))
    np.testing.assert_allclose(functions.batch_statistics(x)[2], x.var(ddof=1), rtol=1e-12)


X = np.array([-800.0, -7, -3, -1, -0.5, 0, 0.5, 1, 3, 6, 7, 800])


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def by_definition(name, x, slope):
    inner = min(max(x + 3, 0), 6) / 6
    return {
        "relu": max(x, 0),
        "relu6": min(max(x, 0), 6),
        "leaky_relu": x if x > 0 else slope * x,
        "elu": x if x > 0 else math.exp(x) - 1,
        "gelu": x * (1 + math.erf(x / math.sqrt(2))) / 2,
        "silu": x * sigmoid(x),
        "hard_swish": x * inner,
        "sigmoid": sigmoid(x),
        "hard_sigmoid": inner,
        "tanh": math.tanh(x),
        "identity": x,
    }[name]


@pytest.mark.parametrize("slope", [0.01, 0.3])
@pytest.mark.parametrize("name", sorted({*functions.ACTIVATIONS, "leaky_relu"} - {"softmax"}))
def test_activations(name, slope):
    y = functions.activation(X, Activation(function=name, negative_slope=slope))
    np.testing.assert_allclose(y, [by_definition(name, x, slope) for x in X], rtol=1e-13, atol=1e-15)


def test_known_values():
    assert functions.sigmoid(np.array([0.0, math.log(3)])).tolist() == pytest.approx([0.5, 0.75])
    assert functions.ACTIVATIONS["gelu"](np.array([1.0]))[0] == pytest.approx(0.8413447460685429)
    assert functions.ACTIVATIONS["elu"](np.array([-math.log(2)]))[0] == pytest.approx(-0.5)


@pytest.mark.parametrize("axis", [0, 1])
def test_softmax(axis):
    x = RANDOM.normal(size=(3, 4, 2))
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
