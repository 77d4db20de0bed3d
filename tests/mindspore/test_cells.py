"""Cells as MindSpore's users use them: subclasses, native checkpoints, batches of any size."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from maam import spec
from maam.errors import ShapeError
from maam.mindspore import MAAM, build
from maam.mindspore.arrays import read_arrays
from tests.errors import error_of
from tests.frameworks import VARIANTS

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


class WithHead(MAAM):
    def __init__(self, channels, classes):
        super().__init__(channels, num_agents=2)
        self.head = nn.Dense(channels, classes)

    def construct(self, x):
        return self.head(super().construct(x).mean((2, 3)))


@pytest.mark.usefixtures("mode")
def test_a_subclass_computes_more(x, scramble, reference):
    model = scramble(WithHead(4, 3))
    mean = reference(model)(x).mean((2, 3))
    expected = mean @ model.head.weight.asnumpy().T + model.head.bias.asnumpy()
    np.testing.assert_allclose(model(ms.Tensor(x)).asnumpy(), expected, **CLOSE)


# MindSpore 2.8 asks its threads for their names in a deprecated way whenever it saves.
@pytest.mark.filterwarnings("ignore:getName.. is deprecated:DeprecationWarning")
class TestNativeCheckpoints:
    @pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
    @pytest.mark.parametrize("name", ["softmax", "dynamic", "scales", "depthwise", "no_norm"])
    def test_round_trip(self, scramble, name, suffix):
        cell, other = scramble(build(spec.maam(4, 8, **VARIANTS[name]))), MAAM(4, 8, **VARIANTS[name])
        ms.save_checkpoint(cell, f"layer.{suffix}", format=suffix)
        saved = ms.load_checkpoint(f"layer.{suffix}", format=suffix)
        assert ms.load_param_into_net(other, saved, strict_load=True) == ([], [])
        np.testing.assert_equal(read_arrays(other), read_arrays(cell))

    @pytest.mark.usefixtures("mode")
    def test_a_network_that_contains_the_layer(self, network, scramble, x):
        first, second = network(scramble(MAAM(4, 8, num_agents=1))), network(MAAM(4, 8, num_agents=1))
        first.set_train()(ms.Tensor(x))  # so that running statistics differ from the initial ones
        ms.save_checkpoint(first, "net.ckpt")
        saved = ms.load_checkpoint("net.ckpt")
        assert ms.load_param_into_net(second, saved, strict_load=True) == ([], [])
        expected = first.set_train(False)(ms.Tensor(x)).asnumpy()
        np.testing.assert_array_equal(second.set_train(False)(ms.Tensor(x)).asnumpy(), expected)
        assert np.abs(expected).max() > 0.1


def batch(*shape):
    return ms.Tensor(np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32))


class TestDynamicShapes:
    """`set_inputs` with None: one graph for batches and images of any size."""

    @pytest.mark.slow_in("dynamic", "scales")
    @pytest.mark.parametrize(
        ("name", "height", "shapes"),
        [
            *((name, 8, [(1, 4, 8, 8), (3, 4, 8, 8), (5, 4, 8, 8)]) for name in ("softmax", "dynamic", "scales")),
            *((name, None, [(2, 4, 5, 12), (2, 4, 9, 12)]) for name in ("softmax", "dynamic")),
        ],
    )
    def test_free_sizes(self, name, height, shapes, scramble, reference, mode):
        cell = scramble(build(spec.maam(4, **VARIANTS[name])))
        expected = reference(cell)
        cell.set_inputs(ms.Tensor(shape=(None, 4, height, height), dtype=ms.float32))
        for shape in shapes:
            x = batch(*shape)
            np.testing.assert_allclose(cell(x).asnumpy(), expected(x.asnumpy()), **CLOSE)
        assert len(cell.compile_cache) == (mode == "graph")

    @pytest.mark.parametrize("mode", ["graph"], indirect=True)
    def test_without_it_every_size_has_its_graph(self, mode):
        cell = build(spec.maam(4, num_agents=1))
        for size in (1, 3):
            cell(batch(size, 4, 8, 8))
        assert len(cell.compile_cache) == 2

    @pytest.mark.usefixtures("mode")
    def test_inside_a_network_in_train_mode(self, network, scramble):
        layer = scramble(build(spec.maam(4, num_agents=2, scales=(1, 3))))
        net, other = network(layer).set_train(), network(scramble(build(layer.spec))).set_train()
        net.set_inputs(ms.Tensor(shape=(None, 4, 8, 8), dtype=ms.float32))
        x = batch(3, 4, 8, 8)
        assert net(batch(2, 4, 8, 8)).shape == (2, 4, 8, 8)
        np.testing.assert_allclose(net(x).asnumpy(), other(x).asnumpy(), **CLOSE)

    @pytest.mark.usefixtures("mode")
    def test_wrong_channels(self):
        cell = build(spec.maam(4, num_agents=1))
        cell.set_inputs(ms.Tensor(shape=(None, 4, 8, 8), dtype=ms.float32))
        assert "got (2, 3, 8, 8)" in error_of(ShapeError, cell, batch(2, 3, 8, 8))
