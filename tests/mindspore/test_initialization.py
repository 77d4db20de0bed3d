"""Initial distributions, and where their randomness comes from; dtypes of parameters."""

import math

import mindspore as ms
import ml_dtypes
import numpy as np
import pytest
from mindspore import nn

from maam import spec
from maam.mindspore import MAAM, build
from maam.mindspore.arrays import read_arrays


def check_weight(cell):
    """He's normal distribution, as the design promises."""
    weight = cell.weight.asnumpy()
    expected, noise = math.sqrt(2 / weight[0].size), 4 / math.sqrt(weight.size)
    assert weight.std() == pytest.approx(expected, rel=noise / math.sqrt(2))
    assert abs(weight.mean()) < noise * expected


def check(cell):
    if isinstance(cell, nn.Conv2d):
        check_weight(cell)
    if isinstance(cell, nn.BatchNorm2d):
        values = (cell.gamma, cell.beta, cell.moving_mean, cell.moving_variance)
        assert [set(value.asnumpy()) for value in values] == [{1}, {0}, {0}, {1}]
    if hasattr(cell, "alpha"):
        assert not cell.alpha.asnumpy().any()
    if isinstance(cell, (nn.Conv2d, nn.Dense)) and cell.has_bias:
        bound = 1 / math.sqrt(cell.weight[0].size)
        assert 0.3 * bound < np.abs(cell.bias.asnumpy()).max() <= bound


def check_all(model):
    checked = [check(cell) for _, cell in model.cells_and_names()]
    assert len(checked) > 10


@pytest.fixture(autouse=True)
def _seed():
    """MindSpore's seed is also NumPy's; both are put back as far as they can be."""
    state = np.random.get_state()
    ms.set_seed(3)
    yield
    np.random.set_state(state)


@pytest.mark.parametrize("arguments", [{}, {"depthwise": True}, {"norm_layer": "identity"}], ids=str)
def test_fresh_layer(arguments):
    check_all(MAAM(64, **arguments))


@pytest.mark.parametrize("seed", [None, 0])
def test_fresh_model(seed):
    model = build("maam_digits", seed=seed)
    check_all(model)
    layers = model.classifier
    bound = math.sqrt(6 / 512)
    assert 0.95 * bound < np.abs(layers.fc1.weight.asnumpy()).max() <= bound
    assert layers.fc1.weight.asnumpy().std() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert 0.95 / 8 < np.abs(layers.fc2.weight.asnumpy()).max() <= 1 / 8


def test_check_notices_a_default_of_mindspore():
    layer = MAAM(64)
    layer.reduce.conv.weight.set_data(nn.Conv2d(64, 64, 1).weight.init_data())
    with pytest.raises(AssertionError):
        check_all(layer)


def test_recurrent_weights():
    model = build(spec.preset("rnn", image_size=8))
    for name, array in read_arrays(model).items():
        if name.startswith("rnn."):
            assert 0.9 / math.sqrt(128) < np.abs(array).max() <= 1 / math.sqrt(128), name


def test_set_seed_makes_it_repeatable():
    ms.set_seed(1)
    first = read_arrays(MAAM(4))
    ms.set_seed(1)
    again = read_arrays(MAAM(4))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["reduce.conv.weight"], read_arrays(MAAM(4))["reduce.conv.weight"])


def test_branches_differ():
    arrays = read_arrays(MAAM(4))
    assert not np.array_equal(arrays["agents.0.conv1.weight"], arrays["agents.1.conv1.weight"])


@pytest.mark.parametrize("name", ["maam_digits", "rnn"])
def test_seed_is_its_own_generator(name):
    ms.set_seed(1)
    first = read_arrays(build(name, seed=7))
    ms.set_seed(2)
    again, drawn = read_arrays(build(name, seed=7)), spec.draw(spec.preset(name).parameters(), 7)
    assert first.keys() == drawn.keys()
    for key, array in drawn.items():
        np.testing.assert_array_equal(first[key], array)
        np.testing.assert_array_equal(again[key], array)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64"])
def test_dtype(name, small):
    model = build(small, seed=5, dtype=getattr(ms, name))
    arrays = read_arrays(model)
    dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    assert {parameter.dtype for parameter in model.get_parameters()} == {getattr(ms, name)}
    for key, array in spec.draw(small.parameters(), 5).items():
        assert arrays[key].dtype == dtype
        np.testing.assert_array_equal(arrays[key], array.astype(dtype))


@pytest.mark.usefixtures("mode")
def test_half_precision_runs(x):
    cell, wide = (build(spec.maam(4, num_agents=1), seed=5, dtype=dtype) for dtype in (ms.float16, ms.float32))
    y, expected = cell(ms.Tensor(x, ms.float16)), wide(ms.Tensor(x)).asnumpy()
    assert y.dtype == ms.float16
    noise = y.asnumpy().astype(np.float64) - expected
    assert 10 * np.log10((expected**2).sum() / (noise**2).sum()) >= 40
