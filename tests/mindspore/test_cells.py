"""Cells as MindSpore's users use them: subclasses, parameter names, native checkpoints, batches of any size."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from maam import spec
from maam.errors import ShapeError
from maam.mindspore import MAAM, build
from maam.mindspore.arrays import read_arrays

NORM = ["moving_mean", "moving_variance", "gamma", "beta"]
GOLDEN = [
    "agents.alpha",
    "agents.0.conv1.weight",
    *(f"agents.0.bn1.{name}" for name in NORM),
    "agents.0.conv2.weight",
    *(f"agents.0.bn2.{name}" for name in NORM),
    "reduce.conv.weight",
    *(f"reduce.bn.{name}" for name in NORM),
]
VARIANTS = {
    "softmax": {},
    "dynamic": {"fusion": "dynamic", "num_agents": 2},
    "scales": {"scales": (2, 1, 3), "reduce": False},
    "depthwise": {"depthwise": True, "num_agents": 2},
    "no_norm": {"norm_layer": "identity", "act_layer": "gelu", "num_agents": 2},
}
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


class TestNames:
    """MindSpore's names of parameters, on which checkpoints depend."""

    @staticmethod
    def names(cell):
        return [parameter.name for parameter in cell.get_parameters()]

    def test_of_a_layer(self):
        assert self.names(MAAM(4, num_agents=1)) == GOLDEN
        assert self.names(build(spec.maam(4, num_agents=1), seed=1)) == GOLDEN

    def test_inside_a_network(self, network):
        layer = MAAM(4, num_agents=1)
        assert self.names(network(layer)) == ["stem.weight", *(f"layer.{name}" for name in GOLDEN)]
        chain = nn.SequentialCell(MAAM(4, num_agents=1), MAAM(4, num_agents=1))
        assert self.names(chain) == [f"{index}.{name}" for index in "01" for name in GOLDEN]

    def test_of_dynamic_fusion(self):
        dense = [f"agents.weighting.fc.{name}" for name in ("weight", "bias")]
        found = self.names(MAAM(4, num_agents=2, fusion="dynamic", reduce=False))
        assert found == [name.replace(".0.", f".{i}.") for i in "01" for name in GOLDEN[1:11]] + dense

    def test_of_depthwise_convolutions(self):
        convs = [f"agents.0.conv{i}.{kind}.weight" for i in "12" for kind in ("depthwise", "pointwise")]
        found = self.names(MAAM(4, num_agents=1, depthwise=True, reduce=False, fusion="mean"))
        assert [name for name in found if ".conv" in name] == convs
        assert [name for name in found if ".bn" in name] == [f"agents.0.bn{i}.{name}" for i in "12" for name in NORM]

    def test_of_a_recurrent_model(self):
        recurrent = [f"rnn.{kind}_{what}_l0" for kind in ("weight", "bias") for what in ("ih", "hh")]
        found = self.names(build(spec.preset("rnn", image_size=8)))
        assert sorted(found) == sorted([*recurrent, "fc.weight", "fc.bias"])

    @pytest.mark.parametrize("name", VARIANTS)
    def test_canonical_names_are_complete(self, name):
        cell = build(spec.maam(4, 8, **VARIANTS[name]))
        assert len(read_arrays(cell)) == len(self.names(cell)) == len(set(self.names(cell)))
        assert set(read_arrays(cell)) == {p.name for p in cell.spec.parameters()}


# MindSpore 2.8 asks its threads for their names in a deprecated way whenever it saves.
@pytest.mark.filterwarnings("ignore:getName.. is deprecated:DeprecationWarning")
class TestNativeCheckpoints:
    @pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
    @pytest.mark.parametrize("name", VARIANTS)
    def test_round_trip(self, scramble, name, suffix):
        cell, other = scramble(build(spec.maam(4, 8, **VARIANTS[name]))), MAAM(4, 8, **VARIANTS[name])
        ms.save_checkpoint(cell, f"layer.{suffix}", format=suffix)
        saved = ms.load_checkpoint(f"layer.{suffix}", format=suffix)
        assert ms.load_param_into_net(other, saved, strict_load=True) == ([], [])
        expected = read_arrays(cell)
        for path, array in read_arrays(other).items():
            np.testing.assert_array_equal(array, expected[path], err_msg=path)

    def test_a_checkpoint_of_another_layer_is_reported(self):
        ms.save_checkpoint(MAAM(4, num_agents=2, fusion="mean"), "layer.ckpt")
        missing, unexpected = ms.load_param_into_net(MAAM(4, num_agents=1), ms.load_checkpoint("layer.ckpt"))
        assert missing == ["agents.alpha"]
        assert all(name.startswith("agents.1.") for name in unexpected)
        assert len(unexpected) == 10

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


class TestDynamicShapes:
    """`set_inputs` with None: one graph for batches and images of any size."""

    BATCHES = (1, 3, 5)

    @staticmethod
    def batch(*shape):
        return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)

    @staticmethod
    def graphs(cell):
        """Return the number of graphs that were compiled for this cell."""
        return len(cell.compile_cache)

    @pytest.mark.parametrize("name", ["softmax", "dynamic", "scales"])
    def test_batch(self, name, scramble, reference, mode):
        cell = scramble(build(spec.maam(4, 8, **VARIANTS[name])))
        expected = reference(cell)
        cell.set_inputs(ms.Tensor(shape=(None, 4, 8, 8), dtype=ms.float32))
        for size in self.BATCHES:
            x = self.batch(size, 4, 8, 8)
            np.testing.assert_allclose(cell(ms.Tensor(x)).asnumpy(), expected(x), **CLOSE)
        assert self.graphs(cell) == (mode == "graph")

    @pytest.mark.parametrize("mode", ["graph"], indirect=True)
    def test_without_it_every_size_has_its_graph(self, mode):
        cell = build(spec.maam(4, num_agents=1))
        for size in self.BATCHES[:2]:
            cell(ms.Tensor(self.batch(size, 4, 8, 8)))
        assert self.graphs(cell) == 2

    @pytest.mark.usefixtures("mode")
    def test_inside_a_network_in_train_mode(self, network, scramble):
        layer = scramble(build(spec.maam(4, num_agents=2, scales=(1, 3))))
        net = network(layer).set_train()
        net.set_inputs(ms.Tensor(shape=(None, 4, 8, 8), dtype=ms.float32))
        other = network(scramble(build(layer.spec))).set_train()
        x = ms.Tensor(self.batch(3, 4, 8, 8))
        assert net(ms.Tensor(self.batch(2, 4, 8, 8))).shape == (2, 4, 8, 8)
        np.testing.assert_allclose(net(x).asnumpy(), other(x).asnumpy(), **CLOSE)

    @pytest.mark.parametrize("fusion", ["softmax", "dynamic"])
    def test_image_size(self, fusion, scramble, reference, mode):
        cell = scramble(build(spec.maam(4, num_agents=2, fusion=fusion)))
        expected = reference(cell)
        cell.set_inputs(ms.Tensor(shape=(None, 4, None, None), dtype=ms.float32))
        for size in (5, 9):
            x = self.batch(2, 4, size, 12)
            np.testing.assert_allclose(cell(ms.Tensor(x)).asnumpy(), expected(x), **CLOSE)
        assert self.graphs(cell) == (mode == "graph")

    @pytest.mark.usefixtures("mode")
    def test_wrong_channels(self):
        cell = build(spec.maam(4, num_agents=1))
        cell.set_inputs(ms.Tensor(shape=(None, 4, 8, 8), dtype=ms.float32))
        with pytest.raises(ShapeError, match=r"got \(2, 3, 8, 8\)"):
            cell(ms.Tensor(self.batch(2, 3, 8, 8)))
