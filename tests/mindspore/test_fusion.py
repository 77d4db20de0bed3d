"""`reparameterize` of MindSpore cells."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import amp, nn

from maam import DeploymentError, WeightsError, fuse, spec
from maam.mindspore import MAAM, SE, build, load, save_weights
from maam.mindspore.arrays import read_arrays

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture
def layer(scramble):
    return scramble(build(spec.maam(4, 8, scales=(1, 2, 1))))


def run(cell, x):
    return cell(ms.Tensor(x)).asnumpy()


def test_same_function_in_place_also_after_a_run(layer, x, mode):
    before = run(layer, x)
    expected, _ = fuse(layer.spec, read_arrays(layer))
    assert layer.reparameterize() is None
    np.testing.assert_allclose(run(layer, x), before, **CLOSE)
    assert layer.spec == expected
    assert not any(isinstance(cell, nn.BatchNorm2d) for cell in layer.cells())
    layer.reduce.conv.bias.copy_(layer.reduce.conv.bias + 1)
    assert not np.allclose(run(layer, x), before)  # no graph of before


def test_in_train_mode(layer):
    layer.set_train()
    with pytest.raises(DeploymentError, match=r"^reparameterize: the model is in train mode, .*set_train\(False\) in"):
        layer.reparameterize()


def test_twice(layer):
    layer.reparameterize()
    with pytest.raises(DeploymentError, match=r"^reparameterize: the model is fused already; build or load it anew"):
        layer.reparameterize()


def test_nan(layer):
    layer.agents.alpha.copy_(ms.Tensor(np.array([np.nan, 0, 0], np.float32)))
    with pytest.raises(WeightsError, match=r"NaN or infinity in agents\.alpha"):
        layer.reparameterize()


@pytest.mark.parametrize("level", ["O2", "O3"])
def test_mixed_precision_comes_after(layer, level):
    amp.auto_mixed_precision(layer, level)
    with pytest.raises(DeploymentError, match="mixed precision has wrapped the cell; fuse first"):
        layer.reparameterize()


def test_nothing_to_fuse_is_no_error():
    gate = SE(4)
    own = list(gate.get_parameters())
    gate.reparameterize()
    assert all(a is b for a, b in zip(own, gate.get_parameters(), strict=True))


def test_two_layers_in_a_network(mode, x, scramble):
    class Two(nn.Cell):
        def __init__(self):
            super().__init__()
            self.first, self.second = scramble(MAAM(4, 8)), scramble(MAAM(8, 4))

        def construct(self, x):
            return self.second(self.first(x))

    network = Two()
    network.set_train(False)
    before = run(network, x) if mode == "pynative" else None
    network.first.reparameterize()
    network.second.reparameterize()
    names = [parameter.name for parameter in network.get_parameters()]
    assert names[0] == "first.agents.0.conv1.weight"
    assert len(set(names)) == len(names)
    after = run(network, x)
    if before is not None:
        np.testing.assert_allclose(after, before, **CLOSE)


def test_a_part_alone(layer, x):
    """The spec of the whole follows."""
    before = run(layer, x)
    layer.agents.reparameterize()
    assert layer.spec.at("agents").merge == "sum"
    assert "bn" in layer.spec.at("reduce").nodes
    np.testing.assert_allclose(run(layer, x), before, **CLOSE)


def test_a_model_is_saved_as_what_it_is(small, scramble, tmp_path):
    model = scramble(build(small))
    x = np.random.default_rng(0).random((2, *small.input_shape), np.float32)
    before = run(model, x)
    model.reparameterize()
    save_weights(model, tmp_path / "m.safetensors")
    np.testing.assert_allclose(run(load(tmp_path / "m.safetensors"), x), before, **CLOSE)
