"""Batches of any size in one graph: `set_inputs` with None."""

import mindspore as ms
import numpy as np
import pytest

from maam import spec
from maam.errors import ShapeError
from maam.mindspore import build

BATCHES = (1, 3, 5)


def batch(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def graphs(cell):
    """How many graphs have been compiled for this cell."""
    return len(cell.compile_cache)


@pytest.mark.parametrize("variant", ["softmax", "dynamic", "scales"], indirect=True)
def test_batch(cell, referee, mode):
    judge = referee(cell)
    cell.set_inputs(ms.Tensor(shape=(None, 4, 8, 8), dtype=ms.float32))
    for size in BATCHES:
        x = batch(size, 4, 8, 8)
        np.testing.assert_allclose(cell(ms.Tensor(x)).asnumpy(), judge(x), rtol=1e-5, atol=1e-5)
    assert graphs(cell) == (mode == "graph")


@pytest.mark.parametrize("mode", ["graph"], indirect=True)
def test_without_it_every_size_has_its_graph(mode):
    cell = build(spec.maam(4, num_agents=1))
    for size in BATCHES[:2]:
        cell(ms.Tensor(batch(size, 4, 8, 8)))
    assert graphs(cell) == 2


@pytest.mark.usefixtures("mode")
def test_inside_a_network_in_training_state(network, scramble):
    layer = scramble(build(spec.maam(4, num_agents=2, scales=(1, 3))))
    net = network(layer).set_train()
    net.set_inputs(ms.Tensor(shape=(None, 4, 8, 8), dtype=ms.float32))
    other = network(scramble(build(layer.spec))).set_train()
    x = ms.Tensor(batch(3, 4, 8, 8))
    assert net(ms.Tensor(batch(2, 4, 8, 8))).shape == (2, 4, 8, 8)
    np.testing.assert_allclose(net(x).asnumpy(), other(x).asnumpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fusion", ["softmax", "dynamic"])
def test_image_size(fusion, scramble, referee, mode):
    cell = scramble(build(spec.maam(4, num_agents=2, fusion=fusion)))
    judge = referee(cell)
    cell.set_inputs(ms.Tensor(shape=(None, 4, None, None), dtype=ms.float32))
    for size in (5, 9):
        x = batch(2, 4, size, 12)
        np.testing.assert_allclose(cell(ms.Tensor(x)).asnumpy(), judge(x), rtol=1e-5, atol=1e-5)
    assert graphs(cell) == (mode == "graph")


@pytest.mark.usefixtures("mode")
def test_wrong_channels():
    cell = build(spec.maam(4, num_agents=1))
    cell.set_inputs(ms.Tensor(shape=(None, 4, 8, 8), dtype=ms.float32))
    with pytest.raises(ShapeError, match=r"got \(2, 3, 8, 8\)"):
        cell(ms.Tensor(batch(2, 3, 8, 8)))
