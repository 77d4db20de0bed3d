"""Attention layers in the networks of MindCV: where they go, what stays, and what is refused."""

import functools

import numpy as np
import pytest

ms = pytest.importorskip("mindspore")
mindcv = pytest.importorskip("mindcv")

from mindcv.models.resnet import BasicBlock, Bottleneck, ResNet  # noqa: E402
from mindcv.models.resnetv2 import PreActBottleneck  # noqa: E402
from mindspore import nn  # noqa: E402

from maam import spec  # noqa: E402
from maam.errors import SpecError  # noqa: E402
from maam.mindcv import create_model, insert_attention, list_attention  # noqa: E402
from maam.mindspore import MAAM, MAF, MAFC, SE  # noqa: E402
from maam.mindspore.layers import Layer  # noqa: E402

pytestmark = pytest.mark.usefixtures("mode")
V3 = "mobilenet_v3_small_075"
BLOCKS = {"resnet18": 8, "mobilenet_v1_025": 13, "mobilenet_v2_035_96": 17, V3: 9}
DEEP = {"resnetv2_50": 16, "resnet50": 16, "resnext50_32x4d": 16}


def shallow():
    """Return a ResNet of four blocks."""
    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)


def chain(*blocks):
    """Return a chain of a convolution, blocks for 8 channels, and a classifier."""
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dense(8, 10))
    return nn.SequentialCell(nn.Conv2d(3, 8, 3, stride=2), *blocks, *head)


def two_blocks():
    return chain(BasicBlock(8, 8), BasicBlock(8, 8))


def copy_weights(source, target):
    for one, other in zip(target.get_parameters(), source.get_parameters(), strict=True):
        one.set_data(other.value().copy())


def inserted(network, kind):
    return [cell for _, cell in network.cells_and_names() if isinstance(cell, kind)]


def parameters(network):
    return {p.name: tuple(p.shape) for p in network.get_parameters()}


@pytest.fixture(scope="module")
def plain():
    """Build a plain network once."""
    return functools.cache(lambda name: parameters(mindcv.create_model(name, num_classes=10)))


class Half(nn.Cell):
    """A layer of a user that halves its input."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def construct(self, x):
        return x * 0.5


@pytest.mark.parametrize(
    ("name", "count"),
    [*BLOCKS.items(), *(pytest.param(*item, marks=pytest.mark.slow) for item in DEEP.items())],
)
def test_insertion_points_and_names(name, count, plain):
    network = create_model(name, num_classes=10, attention="se")
    gates = inserted(network, SE)
    assert len(gates) == count
    new = {p.name for gate in gates for p in gate.get_parameters()}
    removed = {name for name in plain(name) if ".conv_reduce." in name or ".conv_expand." in name}
    assert bool(removed) == ("v3" in name)
    kept = {n: shape for n, shape in plain(name).items() if n not in removed}
    found = parameters(network)
    assert {n: s for n, s in found.items() if n not in new} == kept
    assert len(found) == len(list(network.get_parameters()))
    if name in BLOCKS:  # a second layer replaces the first
        assert insert_attention(network, "maf") is network
        assert len(inserted(network, MAF)) == len(inserted(network, Layer)) == count
        assert {n: s for n, s in parameters(network).items() if n in kept} == kept


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck, PreActBottleneck])
def test_blocks_of_resnets(block):
    network = chain(block(8, 8 // block.expansion))
    before = parameters(network)
    insert_attention(network, "mafc")
    (layer,) = inserted(network, MAFC)
    assert layer.arguments == {"channels": 8}
    new = {p.name for p in layer.get_parameters()}
    assert {n: s for n, s in parameters(network).items() if n not in new} == before


def test_every_block_of_a_mobilenet_v3(plain):
    network = create_model(V3, num_classes=10, attention="se", every_block=True)
    assert len(inserted(network, SE)) == 11
    assert len(inserted(insert_attention(network, "maf"), Layer)) == 11
    assert {name for name in plain(V3) if ".conv_" not in name} <= set(parameters(network))


@pytest.mark.parametrize(
    "name", [V3, *(pytest.param(name, marks=pytest.mark.slow) for name in BLOCKS if name not in (V3, "resnet18"))]
)
def test_a_mobilenet_trains(name, ms_images, ms_train):
    network = create_model(name, num_classes=10, attention="se")
    losses, unchanged = ms_train(network, ms_images(), steps=1)
    assert np.isfinite(losses).all()
    for gate in inserted(network, SE):
        assert {p.name for p in gate.get_parameters()} - set(unchanged)


@pytest.mark.parametrize("mode", ["graph"], indirect=True)
def test_graph_mode_trains_like_pynative_mode(mode, ms_images, ms_train):
    ms.set_seed(0)  # other weights can leave the gate's one hidden unit without a gradient
    network, twin = (insert_attention(chain(BasicBlock(8, 8)), "mafc") for _ in range(2))
    copy_weights(network, twin)
    losses, unchanged = ms_train(network, ms_images())
    assert not [name for name in unchanged if not name.endswith("mlp.1.weight")]
    ms.set_context(mode=ms.PYNATIVE_MODE)
    assert np.allclose(losses, ms_train(twin, ms_images())[0], rtol=1e-4)


@pytest.mark.parametrize("attention", list_attention())
def test_every_layer_by_name(attention, ms_images):
    network = insert_attention(two_blocks(), attention.upper())
    assert len(inserted(network, Layer)) == 2
    assert network(ms_images()).shape == (2, 10)


def test_layer_classes_functions_channels_and_mode():
    class Own(Layer, composite=spec.se):
        """A layer class that a user has defined."""

    for attention in (Own, functools.partial(MAFC, rd_ratio=1 / 8), lambda channels: MAAM(channels, num_agents=1)):
        assert len(inserted(insert_attention(two_blocks(), attention), Layer)) == 2
    network = insert_attention(shallow(), Half)
    assert [cell.channels for cell in inserted(network, Half)] == [64, 128, 256, 512]
    assert not any(cell.training for cell in inserted(network, Half))
    assert all(cell.training for cell in inserted(insert_attention(network.set_train(), "mafc"), Layer))


def test_the_layer_is_before_the_addition(ms_images):
    """Halving the residual branch equals halving its last batch norm."""
    network, twin = two_blocks(), two_blocks()
    copy_weights(network, twin)
    for block in inserted(twin, BasicBlock):
        block.bn2.gamma.set_data(block.bn2.gamma * 0.5)
        block.bn2.beta.set_data(block.bn2.beta * 0.5)
    insert_attention(network, Half)
    assert np.allclose(network(ms_images()).asnumpy(), twin(ms_images()).asnumpy(), atol=1e-6)


def test_features(ms_images):
    network = create_model("mobilenet_v2_035_96", attention="maf", features_only=True, out_indices=[1, 2])
    assert len(inserted(network, Layer)) > 0
    assert [tuple(y.shape)[1] for y in network(ms_images())] == network.out_channels


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        ("mafd", "no layer 'mafd'; did you mean 'maf[bc]?'"),
        ("", "no layer ''; did you mean"),
        (3, "expected a name, a layer class or a function of the channels, got an object of type int"),
        (lambda channels: channels, "expected a function that returns a cell, got one that returns a int"),
        (lambda channels: MAAM(channels, 4), r"MAAM turns \(8, 64, 64\) into \(4, 64, 64\); expected a layer that ke"),
        (lambda channels: MAAM(channels, 4 * channels), "MAAM turns"),
    ],
)
def test_refused_attention_leaves_the_network_unchanged(attention, message):
    network = two_blocks()
    before = parameters(network)
    with pytest.raises(SpecError, match=message):
        insert_attention(network, attention)
    assert parameters(network) == before
    assert inserted(network, Layer) == []


def test_an_error_in_a_later_block_leaves_the_network_unchanged():
    network = shallow()
    with pytest.raises(SpecError, match=r"MAAM turns \(128, 64, 64\) into \(64, 64, 64\)"):
        insert_attention(network, lambda channels: MAAM(channels, 64))
    assert inserted(network, Layer) == []
    for unknown in (mindcv.create_model("squeezenet1_0"), nn.Dense(3, 4)):
        with pytest.raises(SpecError, match="found no block for an attention layer; expected a ResNet, ResNeXt or Res"):
            insert_attention(unknown, "se")
