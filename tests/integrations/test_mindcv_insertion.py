"""Layers of ours in MindCV's networks: where they go, what stays, what is refused."""

import functools

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindcv.models.resnet import BasicBlock, ResNet
from mindspore import nn

from maam import spec
from maam.errors import SpecError
from maam.mindcv import create_model, insert_attention, list_attention
from maam.mindspore import MAAM, MAF, MAFC, SE
from maam.mindspore.layers import Layer

BLOCKS = {"resnet18": 8, "mobilenet_v1_025": 13, "mobilenet_v2_035_96": 17, "mobilenet_v3_small_075": 9}
DEEP = [
    ("resnet50", 16),
    ("resnetv2_50", 16),
    pytest.param("resnext50_32x4d", 16, marks=pytest.mark.slow),
]


def shallow(**options):
    """A ResNet of four blocks."""
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10, **options)


def inserted(network, kind):
    return [cell for _, cell in network.cells_and_names() if isinstance(cell, kind)]


def parameters(network):
    return {p.name: tuple(p.shape) for p in network.get_parameters()}


class ModelAdapter(nn.Cell):
    """A layer of a user's own, by which it shows where it stands."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def construct(self, x):
        return x * 0.5


@pytest.mark.parametrize(("name", "count"), [*BLOCKS.items(), *DEEP])
def test_every_block_gets_a_layer_and_names_stay(name, count):
    plain, network = mindcv.create_model(name, num_classes=10), create_model(name, num_classes=10, attention="se")
    gates = inserted(network, SE)
    assert len(gates) == count
    new = {p.name for gate in gates for p in gate.get_parameters()}
    gone = {name for name in parameters(plain) if ".conv_reduce." in name or ".conv_expand." in name}
    assert bool(gone) == ("v3" in name)
    kept = {n: shape for n, shape in parameters(plain).items() if n not in gone}
    assert {n: s for n, s in parameters(network).items() if n not in new} == kept
    assert len(parameters(network)) == len(list(network.get_parameters()))


@pytest.mark.parametrize("name", list(BLOCKS)[1:])
def test_mobilenets_train(name, images, train):
    network = create_model(name, num_classes=10, attention="se")
    losses, unchanged = train(network, images(), steps=1)
    assert np.isfinite(losses).all()
    for gate in inserted(network, SE):
        assert {p.name for p in gate.get_parameters()} - set(unchanged)


@pytest.mark.parametrize("mode", ["graph"], indirect=True)
def test_graph_mode_trains_like_pynative_mode(mode, images, train):
    network, twin = insert_attention(shallow(), "mafc"), insert_attention(shallow(), "mafc")
    for one, other in zip(twin.get_parameters(), network.get_parameters(), strict=True):
        one.set_data(other.value().copy())
    losses, unchanged = train(network, images(64))
    assert not [name for name in unchanged if not name.endswith("mlp.1.weight")]
    ms.set_context(mode=ms.PYNATIVE_MODE)
    assert np.allclose(losses, train(twin, images(64))[0], rtol=1e-4)


@pytest.mark.parametrize("attention", list_attention())
def test_every_layer_by_name(attention, images):
    network = insert_attention(shallow(), attention.upper())
    assert len(inserted(network, Layer)) == 4
    assert network(images()).shape == (2, 10)


def test_layer_classes_functions_and_cells(images):
    class Own(Layer, composite=spec.se):
        """A layer defined outside maam."""

    for attention in (Own, functools.partial(MAFC, rd_ratio=1 / 8), lambda channels: MAAM(channels, num_agents=1)):
        assert len(inserted(insert_attention(shallow(), attention), Layer)) == 4


def test_the_layer_stands_in_front_of_the_addition(images):
    """ModelAdapter of the branch is added to the shortcut: the same as half of the last batch norm."""
    network, twin = shallow(), shallow()
    for one, other in zip(twin.get_parameters(), network.get_parameters(), strict=True):
        one.set_data(other.value().copy())
    for _, cell in twin.cells_and_names():
        if isinstance(cell, BasicBlock):
            cell.bn2.gamma.set_data(cell.bn2.gamma * 0.5)
            cell.bn2.beta.set_data(cell.bn2.beta * 0.5)
    insert_attention(network, ModelAdapter)
    assert np.allclose(network(images()).asnumpy(), twin(images()).asnumpy(), atol=1e-6)


def test_channels_are_those_of_the_map():
    assert [cell.channels for cell in inserted(insert_attention(shallow(), ModelAdapter), ModelAdapter)] == [
        64,
        128,
        256,
        512,
    ]


def test_the_state_of_the_network_is_the_layers():
    network = insert_attention(shallow().set_train(), "mafc")
    assert all(cell.training for cell in inserted(network, Layer))
    assert not any(cell.training for cell in inserted(insert_attention(shallow(), "mafc"), Layer))


def test_features(images):
    network = create_model("mobilenet_v2_035_96", attention="maf", features_only=True, out_indices=[1, 2])
    assert len(inserted(network, Layer)) > 0
    assert [tuple(y.shape)[1] for y in network(images())] == network.out_channels


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        ("mafd", "no layer 'mafd'; did you mean 'maf[bc]?'. Known layers: maam"),
        ("", "no layer ''; did you mean"),
        (3, "expected a name, a layer class or a function of the channels, got an object of type int"),
        (lambda channels: channels, "expected a function that returns a cell, got a int"),
        (
            lambda channels: MAAM(channels, 8),
            r"MAAM turns \(64, 64, 64\) into \(8, 64, 64\); expected a layer that keeps",
        ),
    ],
)
def test_bad_attention(attention, message):
    network = shallow()
    before = parameters(network)
    with pytest.raises(SpecError, match=message):
        insert_attention(network, attention)
    assert parameters(network) == before


def test_a_failure_half_way_leaves_the_network_as_it_was():
    network = shallow()
    with pytest.raises(SpecError, match="MAAM turns"):
        insert_attention(network, lambda channels: MAAM(channels, 64))
    assert inserted(network, Layer) == []


@pytest.mark.parametrize("make", [lambda: mindcv.create_model("squeezenet1_0"), lambda: nn.Dense(3, 4)])
def test_networks_without_known_blocks(make):
    with pytest.raises(SpecError, match="no block to put attention into; expected a ResNet, ResNeXt or ResNetV2"):
        insert_attention(make(), "se")


@pytest.mark.parametrize("name", BLOCKS)
def test_a_second_layer_replaces_the_first(name):
    network = create_model(name, num_classes=10, attention="se")
    assert insert_attention(network, "maf") is network
    assert len(inserted(network, MAF)) == len(inserted(network, Layer)) == BLOCKS[name]
    assert parameters(network) == parameters(create_model(name, num_classes=10, attention="maf"))


def test_every_block_of_a_mobilenet_v3():
    network = create_model("mobilenet_v3_small_075", num_classes=10, attention="se", every_block=True)
    assert len(inserted(network, SE)) == 11
    assert len(inserted(insert_attention(network, "maf"), Layer)) == 11
    plain = parameters(mindcv.create_model("mobilenet_v3_small_075", num_classes=10))
    assert {name for name in plain if ".conv_" not in name} <= set(parameters(network))
