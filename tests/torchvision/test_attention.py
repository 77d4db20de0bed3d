"""Layers of ours in torchvision's networks."""

import copy
from functools import partial

import pytest

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

from torch import nn  # noqa: E402
from torchvision.models.feature_extraction import create_feature_extractor  # noqa: E402
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet  # noqa: E402

import maam.torchvision  # noqa: E402
from maam.errors import SpecError  # noqa: E402
from maam.torch import MAAM, MAF, MAFC, SE  # noqa: E402
from maam.torch.layers import Layer  # noqa: E402
from maam.torchvision import insert_attention, list_attention  # noqa: E402

PLACES = {  # how many blocks have attention, how many there are, and where the first stands in each case
    "resnet18": (0, 8, "layer1.0.attention"),
    "wide_resnet50_2": (0, 16, "layer1.0.attention"),
    "resnext50_32x4d": (0, 16, "layer1.0.attention"),
    "mobilenet_v2": (0, 17, "features.1.conv.3"),
    "mobilenet_v3_small": (9, 11, "features.1.block.1"),
    "mobilenet_v3_large": (8, 15, "features.4.block.2"),
    "efficientnet_b0": (16, 16, "features.1.0.block.1"),
    "efficientnet_v2_s": (30, 40, "features.4.0.block.2"),
}


@pytest.fixture(autouse=True)
def seeded(tmp_path, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def x():
    return torch.rand(2, 3, 32, 32)


@pytest.fixture(params=[BasicBlock, Bottleneck])
def resnet(request):
    """A ResNet of one block a stage."""
    return ResNet(request.param, [1, 1, 1, 1], num_classes=3)


GATES = sorted({*list_attention()} - {"maam"})


def new_layers(network, kind=Layer):
    return [name for name, module in network.named_modules() if isinstance(module, kind)]


@pytest.mark.parametrize("name", PLACES)
def test_places(name):
    had, blocks, first = PLACES[name]
    with torch.device("meta"):
        plain = torchvision.models.get_model(name)
    network = insert_attention(copy.deepcopy(plain), "mafc")
    everywhere = network if not had else insert_attention(copy.deepcopy(plain), "mafc", every_block=True)
    assert len(new_layers(network)) == (had or blocks)
    assert new_layers(network)[0] == first
    assert len(new_layers(everywhere)) == blocks
    before, found = plain.state_dict(), network.state_dict()
    gone = {key for key in before if key not in found}
    assert all(key.rpartition(".")[0].endswith(("fc1", "fc2")) for key in gone)
    assert len(gone) == 4 * had
    added = {key for key in found if key not in before}
    assert all(any(key.startswith(f"{layer}.") for layer in new_layers(network)) for key in added)


@pytest.mark.parametrize("attention", [*GATES, partial(MAAM, hidden_channels=4, depthwise=True), nn.Identity])
def test_a_resnet_trains(attention, resnet, x):
    network = insert_attention(resnet, attention)
    network(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("attention", ["maam", MAFC])
def test_a_mobilenet_trains(attention, x):
    """MAAM ends in a ReLU, to whose output MobileNetV3 adds in place."""
    network = maam.torchvision.mobilenet_v3_small(attention, every_block=True, num_classes=3)
    network(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_one_line():
    network = maam.torchvision.mobilenet_v3_small(attention=MAFC, num_classes=10)
    assert network.classifier[-1].out_features == 10
    assert len(new_layers(network, MAFC)) == 9
    assert maam.torchvision.mobilenet_v3_small.__name__ == "mobilenet_v3_small"
    same = maam.torchvision.create_model("mobilenet_v3_small", MAFC, num_classes=10)
    assert list(same.state_dict()) == list(network.state_dict())


def test_every_classifier_is_there():
    names = torchvision.models.list_models(torchvision.models)
    assert set(names) <= set(dir(maam.torchvision))
    assert callable(maam.torchvision.vit_b_16)


def test_without_attention_it_is_torchvisions_own():
    with torch.device("meta"):
        own, plain = maam.torchvision.vgg11(num_classes=3), torchvision.models.vgg11(num_classes=3)
    assert list(own.state_dict()) == list(plain.state_dict())


def test_a_name_that_does_not_exist():
    with pytest.raises(
        AttributeError, match=r"'maam\.torchvision' has no attribute 'resnet19'; did you mean 'resnet18'"
    ):
        maam.torchvision.resnet19  # noqa: B018


def test_the_gate_stands_in_front_of_the_addition(resnet):
    block, x = resnet.eval().layer2[0], torch.rand(2, resnet.layer2[0].conv1.in_channels, 8, 8)
    plain, shortcut = block(x), torch.relu(block.downsample(x))
    gate = insert_attention(resnet, lambda channels: SE(channels)).layer2[0].attention
    nn.init.zeros_(gate.fc2.weight)
    nn.init.constant_(gate.fc2.bias, 40.0)  # sigmoid(40) = 1
    assert torch.equal(resnet.layer2[0](x), plain)
    nn.init.constant_(gate.fc2.bias, -120.0)  # 0
    assert torch.equal(resnet.layer2[0](x), shortcut)


def test_weights_of_the_plain_network_stay():
    plain = torchvision.models.mobilenet_v3_small(num_classes=3)
    network = insert_attention(copy.deepcopy(plain), "mafc")
    layers, before = tuple(f"{name}." for name in new_layers(network)), plain.state_dict()
    kept = {name: array for name, array in network.state_dict().items() if not name.startswith(layers)}
    assert kept.keys() == {name for name in before if not name.startswith(layers)}
    assert all(torch.equal(array, before[name]) for name, array in kept.items())
    found = network.load_state_dict(before, strict=False)
    assert all(key.startswith(layers) for key in (*found.missing_keys, *found.unexpected_keys))


def test_a_second_layer_replaces_the_first(resnet):
    for network in (resnet, maam.torchvision.mobilenet_v3_small()):
        for attention in ("mafc", lambda channels: nn.Identity(), "se"):
            insert_attention(network, attention, every_block=True)
        with_se = copy.deepcopy(network)
        assert new_layers(with_se, MAFC) == []
        assert len(new_layers(with_se, SE)) == (11 if network is not resnet else 4)


def test_device_dtype_and_mode(resnet):
    layer = insert_attention(resnet.double().eval(), "mafc").layer1[0].attention
    assert {p.dtype for p in layer.parameters()} == {torch.float64}
    assert not layer.training
    assert not resnet.layer1[0].training


def test_features(resnet, x):
    network = insert_attention(resnet, "mafc").eval()
    maps = create_feature_extractor(network, {"layer2": "map"})(x)
    assert maps["map"].shape[2:] == (4, 4)


def test_compile(x):
    torch._dynamo.reset()
    network = insert_attention(ResNet(Bottleneck, [1, 1, 1, 1]), "mafc").eval()
    torch.testing.assert_close(torch.compile(network, backend="eager", fullgraph=True)(x), network(x))


def test_export():
    network, x = insert_attention(ResNet(BasicBlock, [1, 1, 1, 1]), "mafc").eval(), torch.rand(2, 3, 32, 32)
    program = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    three = torch.cat((x, x[:1]))
    torch.testing.assert_close(program.module()(three), network(three))


@pytest.mark.parametrize(
    ("name", "attention", "message"),
    [
        ("vgg11", "mafc", "VGG: no block to put attention into; expected blocks of torchvision's ResNet, MobileNetV2"),
        ("resnet18", "mafcc", "no layer 'mafcc'; did you mean 'mafc'? There are maam, maf, mafc, mafb, se, cbam"),
        ("resnet18", partial(MAAM, pool=2), "attention: MAAM turns (64, 64, 64) into (64, 32, 32); expected a layer"),
        ("resnet18", str, "attention: expected a function that returns a module, got a str"),
        ("resnet18", partial(MAF, ratio=2), "maf: got an unexpected keyword argument 'ratio'"),
    ],
)
def test_what_cannot_be(name, attention, message):
    with torch.device("meta"):
        network = torchvision.models.get_model(name)
    before = list(network.state_dict())
    with pytest.raises(SpecError) as caught:
        insert_attention(network, attention)
    assert message in str(caught.value)
    assert list(network.state_dict()) == before
