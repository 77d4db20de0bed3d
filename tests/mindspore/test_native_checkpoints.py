"""MindSpore's own checkpoints, and the parameter names that they hang on."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from maam import spec
from maam.mindspore import MAAM, build
from maam.mindspore.arrays import read_arrays

NORM = ["moving_mean", "moving_variance", "gamma", "beta"]
GOLDEN = [
    "agents.alpha",
    "agents.0.conv1.weight",
    "agents.0.bn1.moving_mean",
    "agents.0.bn1.moving_variance",
    "agents.0.bn1.gamma",
    "agents.0.bn1.beta",
    "agents.0.conv2.weight",
    "agents.0.bn2.moving_mean",
    "agents.0.bn2.moving_variance",
    "agents.0.bn2.gamma",
    "agents.0.bn2.beta",
    "reduce.conv.weight",
    "reduce.bn.moving_mean",
    "reduce.bn.moving_variance",
    "reduce.bn.gamma",
    "reduce.bn.beta",
]
# MindSpore 2.8 asks its threads for their names in the old way whenever it saves.
pytestmark = pytest.mark.filterwarnings("ignore:getName.. is deprecated:DeprecationWarning")


def names(cell):
    return [parameter.name for parameter in cell.get_parameters()]


def test_names():
    assert names(MAAM(4, num_agents=1)) == GOLDEN
    assert names(build(spec.maam(4, num_agents=1), seed=1)) == GOLDEN


def test_names_inside_a_network(network):
    layer = MAAM(4, num_agents=1)
    assert names(network(layer)) == ["stem.weight", *(f"layer.{name}" for name in GOLDEN)]
    chain = nn.SequentialCell(MAAM(4, num_agents=1), MAAM(4, num_agents=1))
    assert names(chain) == [f"{index}.{name}" for index in "01" for name in GOLDEN]


def test_names_of_dynamic_fusion():
    dense = [f"agents.weighting.fc.{name}" for name in ("weight", "bias")]
    found = names(MAAM(4, num_agents=2, fusion="dynamic", reduce=False))
    assert found == [name.replace(".0.", f".{i}.") for i in "01" for name in GOLDEN[1:11]] + dense


def test_names_of_depthwise():
    convs = [f"agents.0.conv{i}.{kind}.weight" for i in "12" for kind in ("depthwise", "pointwise")]
    found = names(MAAM(4, num_agents=1, depthwise=True, reduce=False, fusion="mean"))
    assert [name for name in found if ".conv" in name] == convs
    assert [name for name in found if ".bn" in name] == [f"agents.0.bn{i}.{name}" for i in "12" for name in NORM]


def test_names_of_a_recurrent_model():
    recurrent = [f"rnn.{kind}_{what}_l0" for kind in ("weight", "bias") for what in ("ih", "hh")]
    assert sorted(names(build(spec.preset("rnn", image_size=8)))) == sorted([*recurrent, "fc.weight", "fc.bias"])


def test_names_of_the_published_arrays(cell):
    assert len(read_arrays(cell)) == len(names(cell)) == len(set(names(cell)))
    assert set(read_arrays(cell)) == {p.name for p in cell.spec.parameters()}


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_round_trip(cell, variant, suffix):
    ms.save_checkpoint(cell, f"layer.{suffix}", format=suffix)
    other = MAAM(4, 8, **variant)
    saved = ms.load_checkpoint(f"layer.{suffix}", format=suffix)
    assert ms.load_param_into_net(other, saved, strict_load=True) == ([], [])
    expected = read_arrays(cell)
    for name, array in read_arrays(other).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_a_foreign_checkpoint_is_reported():
    ms.save_checkpoint(MAAM(4, num_agents=2, fusion="mean"), "layer.ckpt")
    missing, unexpected = ms.load_param_into_net(MAAM(4, num_agents=1), ms.load_checkpoint("layer.ckpt"))
    assert missing == ["agents.alpha"]
    assert all(name.startswith("agents.1.") for name in unexpected)
    assert len(unexpected) == 10


@pytest.mark.usefixtures("mode")
def test_network_that_contains_the_layer(network, scramble, x):
    first, second = network(scramble(MAAM(4, 8, num_agents=1))), network(MAAM(4, 8, num_agents=1))
    first.set_train()(ms.Tensor(x))  # the running statistics travel too
    ms.save_checkpoint(first, "net.ckpt")
    saved = ms.load_checkpoint("net.ckpt")
    assert ms.load_param_into_net(second, saved, strict_load=True) == ([], [])
    expected = first.set_train(False)(ms.Tensor(x)).asnumpy()
    np.testing.assert_array_equal(second.set_train(False)(ms.Tensor(x)).asnumpy(), expected)
    assert np.abs(expected).max() > 0.1
