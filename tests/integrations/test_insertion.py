"""Attention layers in the networks of timm, torchvision and MindCV: where they go, what stays, what is refused."""

from collections import namedtuple
from functools import partial

import numpy as np
import pytest

torch, timm, _, ms, mindcv = map(pytest.importorskip, ("torch", "timm", "torchvision", "mindspore", "mindcv"))

from mindcv.models import resnet as mindcv_resnet  # noqa: E402
from timm.models import resnet as timm_resnet  # noqa: E402
from torch import nn  # noqa: E402
from torchvision import models as torch_models  # noqa: E402
from torchvision.models import resnet as torchvision_resnet  # noqa: E402
from torchvision.models.feature_extraction import create_feature_extractor  # noqa: E402

import maam  # noqa: E402
from maam.errors import PresetError, SpecError  # noqa: E402
from maam.torch import MAAM, MAF, MAFC  # noqa: E402
from maam.torch.layers import Layer  # noqa: E402
from tests.errors import error_of  # noqa: E402

pytestmark = pytest.mark.usefixtures("seeded", "mode")

Library = namedtuple("Library", "create resnet mobilenet maam layers nn")
TIMM = Library(timm.create_model, timm_resnet, "mobilenetv3_small_050", maam.timm, maam.torch, nn)
VISION = Library(torch_models.get_model, torchvision_resnet, "mobilenet_v3_small", maam.torchvision, maam.torch, nn)
MINDCV = Library(mindcv.create_model, mindcv_resnet, "mobilenet_v3_small_075", maam.mindcv, maam.mindspore, ms.nn)
LIBRARIES = {"timm": TIMM, "torchvision": VISION, "mindcv": MINDCV}
IMAGES = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
slow = partial(pytest.param, marks=pytest.mark.slow)
PYTORCH = pytest.mark.parametrize("library", ["timm", "torchvision"], indirect=True)
POINTS = {  # blocks with attention, blocks in all, the first new layer, and the first one with every_block
    "timm": {
        "resnet10t": (0, 4, "layer1.0.se", "layer1.0.se"),
        "seresnet18": (8, 8, "layer1.0.se", "layer1.0.se"),
        "skresnet18": (0, 8, "layer1.0.se", "layer1.0.se"),
        "ecaresnet26t": (8, 8, "layer1.0.se", "layer1.0.se"),
        "resnext50_32x4d": (0, 16, "layer1.0.se", "layer1.0.se"),
        "res2net50_14w_8s": (0, 16, "layer1.0.se", "layer1.0.se"),
        "mobilenetv3_small_050": (9, 11, "blocks.0.0.se", "blocks.0.0.se"),
        "mobilenetv2_035": (0, 17, "blocks.0.0.se", "blocks.0.0.se"),
        "efficientnet_b0": (16, 16, "blocks.0.0.se", "blocks.0.0.se"),
        "efficientnet_es": (0, 18, "blocks.0.0.se", "blocks.0.0.se"),
        "mobilenetv4_conv_small": (0, 12, "blocks.2.0.se", "blocks.2.0.se"),
        "mixnet_s": (13, 16, "blocks.2.0.se", "blocks.0.0.se"),
        "lcnet_035": (2, 13, "blocks.5.0.se", "blocks.0.0.se"),
        "regnetx_002": (0, 13, "s1.b1.se", "s1.b1.se"),
        "regnety_002": (13, 13, "s1.b1.se", "s1.b1.se"),
        "convnext_atto": (0, 12, "stages.0.blocks.0.drop_path.attention", "stages.0.blocks.0.drop_path.attention"),
        "densenet121": (0, 4, "features.transition1.conv.attention", "features.transition1.conv.attention"),
    },
    "torchvision": {
        "resnet18": (0, 8, "layer1.0.attention", "layer1.0.attention"),
        "wide_resnet50_2": (0, 16, "layer1.0.attention", "layer1.0.attention"),
        "resnext50_32x4d": (0, 16, "layer1.0.attention", "layer1.0.attention"),
        "mobilenet_v2": (0, 17, "features.1.conv.3", "features.1.conv.3"),
        "mobilenet_v3_small": (9, 11, "features.1.block.1", "features.1.block.1"),
        "mobilenet_v3_large": (8, 15, "features.4.block.2", "features.1.block.2"),
        "efficientnet_b0": (16, 16, "features.1.0.block.1", "features.1.0.block.1"),
        "efficientnet_v2_s": (30, 40, "features.4.0.block.2", "features.1.0.block.1"),
    },
    "mindcv": {
        "resnet18": (0, 8, "layer1.0.bn2.attention", "layer1.0.bn2.attention"),
        "mobilenet_v1_025": (0, 13, "features.3.6", "features.3.6"),
        "mobilenet_v2_035_96": (0, 17, "features.3.layers.5", "features.3.layers.5"),
        "mobilenet_v3_small_075": (9, 11, "features.3.layers.3", "features.3.layers.3"),
        "resnetv2_50": (0, 16, "layer1.0.conv3.attention", "layer1.0.conv3.attention"),
        "resnet50": (0, 16, "layer1.0.bn3.attention", "layer1.0.bn3.attention"),
        "resnext50_32x4d": (0, 16, "layer1.0.bn3.attention", "layer1.0.bn3.attention"),
    },
}


class Own(Layer, composite=maam.spec.maf):
    """A layer class that a user has defined."""


class Half(nn.Module):
    def forward(self, x):
        return x * 0.5


class Halving(ms.nn.Cell):
    """A layer of a user that halves its input."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def construct(self, x):
        return x * 0.5


@pytest.fixture(params=LIBRARIES)
def library(request):
    return LIBRARIES[request.param]


def shallow_resnet(library, block="BasicBlock"):
    kind = getattr(library.resnet, block)
    if library is not TIMM:
        return library.resnet.ResNet(kind, [1, 1, 1, 1], num_classes=3)
    channels = (8, 16, 16, 16) if block == "BasicBlock" else (8, 8, 8, 8)
    return timm_resnet.ResNet(kind, (1, 1, 1, 1), num_classes=3, channels=channels, stem_width=8)


def inserted(network, kind=(Layer, maam.mindspore.layers.Layer)):
    """Return the layers of a kind by name."""
    modules = network.named_modules() if isinstance(network, nn.Module) else network.cells_and_names()
    return {name: module for name, module in modules if isinstance(module, kind)}


def fill(parameters, value):
    for p in parameters:
        if isinstance(p, ms.Parameter):
            p.set_data(ms.Tensor(np.full(p.shape, value, np.float32)))
        else:
            nn.init.constant_(p, value)


def call(network, x=IMAGES):
    """Return the output for a NumPy array, in evaluation."""
    if isinstance(network, nn.Module):
        return network.eval()(torch.as_tensor(x)).detach().numpy()
    return network.set_train(False)(ms.Tensor(x)).asnumpy()


def shapes(network):
    """Return the names and shapes of all arrays; no name occurs twice."""
    if isinstance(network, nn.Module):
        arrays = list(network.state_dict().items())
    else:
        arrays = [(p.name, p) for p in network.get_parameters()]
    assert len(dict(arrays)) == len(arrays)
    return {(name, tuple(array.shape)) for name, array in arrays}


def create(library, name, device="meta", **options):
    """Build a plain network with the library; on the meta device, those of PyTorch take no memory."""
    with torch.device(device):
        return library.create(name, **options)


@pytest.mark.slow_in("mindcv-resnetv2_50", "mindcv-resnet50", "mindcv-resnext50")
@pytest.mark.parametrize(
    ("library", "name"), [(name, network) for name in POINTS for network in POINTS[name]], indirect=["library"]
)
def test_insertion_points_and_names(library, name):
    occupied, blocks, first, first_of_all = POINTS[library.maam.__name__.removeprefix("maam.")][name]
    plain = create(library, name)
    before = shapes(plain)
    assert library.maam.insert_attention(plain, "mafc") is plain
    layers, after = list(inserted(plain)), shapes(plain)
    assert (len(layers), layers[0]) == (occupied or blocks, first)
    everywhere = list(inserted(library.maam.insert_attention(create(library, name), "mafc", every_block=True)))
    assert (len(everywhere), everywhere[0]) == (blocks, first_of_all)
    assert set(layers) <= set(everywhere)
    new = {array for array in before | after if array[0].startswith(tuple(f"{layer}." for layer in layers))}
    assert before - new == after - new
    assert (before <= after) == (not occupied)


@PYTORCH
@pytest.mark.parametrize("block", ["BasicBlock", "Bottleneck"])
@pytest.mark.parametrize(
    "attention",
    ["mafb", "cbam", Own, partial(MAFC, rd_ratio=1 / 4), partial(MAAM, hidden_channels=4, depthwise=True), nn.Identity],
)
def test_a_resnet_trains(library, block, attention, images, without_gradient):
    """MAAM ends in a ReLU, and a ResNet of timm adds to its output in place."""
    network = library.maam.insert_attention(shallow_resnet(library, block), attention)
    assert network(images()).shape == (2, 3)
    assert without_gradient(network, images()) == []


QUICK = ("maam", "mafc", "mafb", "coord", "ema", "gct", "simam")


@PYTORCH
@pytest.mark.parametrize(
    "attention", [(pytest.param if name in QUICK else slow)(name) for name in maam.timm.list_attention()]
)
def test_a_mobilenet_trains(library, attention, images, without_gradient):
    """The MobileNetV3 of torchvision adds in place to the output of a layer at the end of a block."""
    network = library.maam.create_model(library.mobilenet, attention=attention, every_block=True, num_classes=3)
    assert without_gradient(network, images()) == []


def test_the_layer_is_before_the_addition(library):
    """Halving the residual branches equals halving the weights of their last batch norms."""
    network = shallow_resnet(library)
    norms = [stage[0].bn2 for stage in (network.layer1, network.layer2, network.layer3, network.layer4)]
    weights = [norm.gamma if library is MINDCV else norm.weight for norm in norms]
    fill(weights, 1.0)  # timm starts with 0
    library.maam.insert_attention(network, lambda channels: Halving(channels) if library is MINDCV else Half())
    halved = call(network)
    library.maam.insert_attention(network, lambda channels: library.nn.Identity())
    assert not np.allclose(call(network), halved, atol=1e-3)
    fill(weights, 0.5)
    np.testing.assert_allclose(call(network), halved, rtol=1e-4, atol=1e-5)


@PYTORCH
def test_other_weights_stay(library):
    plain = create(library, library.mobilenet, "cpu", num_classes=3)
    before = {name: array.clone() for name, array in plain.state_dict().items()}
    library.maam.insert_attention(plain, MAFC)
    found, layers = plain.state_dict(), tuple(f"{name}." for name in inserted(plain))
    assert all(torch.equal(found[name], array) for name, array in before.items() if not name.startswith(layers))
    built = library.maam.create_model(library.mobilenet, num_classes=3, attention=MAFC)
    assert list(built.state_dict()) == list(found)


def test_a_second_layer_replaces_the_first(library):
    for network, blocks in ((shallow_resnet(library), 4), (create(library, library.mobilenet), 11)):
        library.maam.insert_attention(network, "mafc", every_block=True)
        before = {array for array in shapes(network) if "Gate." not in array[0]}
        for attention in (lambda channels: library.nn.Identity(), "se"):
            library.maam.insert_attention(network, attention, every_block=True)
        assert not inserted(network, library.layers.MAFC)
        assert len(inserted(network, library.layers.SE)) == len(inserted(network)) == blocks
        assert before <= shapes(network)


@PYTORCH
def test_device_dtype_mode_and_defaults(library):
    network = library.maam.insert_attention(shallow_resnet(library).double().eval(), "mafc")
    layer = inserted(network)["layer1.0.se" if library is TIMM else "layer1.0.attention"]
    assert {p.dtype for p in layer.parameters()} == {torch.float64}
    assert not any(module.training for module in network.modules())
    assert layer(torch.rand(1, layer.arguments["channels"], 4, 4, dtype=torch.float64)).dtype == torch.float64
    network = library.maam.insert_attention(create(library, library.mobilenet), MAF)
    assert next(iter(inserted(network, MAF).values())).arguments == {"channels": 16}


@PYTORCH
def test_without_attention_the_network_is_that_of_the_library(library):
    expected = list(create(library, "resnet18", num_classes=3).state_dict())
    for options in ({}, {"attention": None}):
        with torch.device("meta"):
            model = library.maam.create_model("resnet18", num_classes=3, **options)
        assert list(model.state_dict()) == expected
    message = "no model 'resnet81'; did you mean 'resnet"
    assert message in error_of(PresetError, library.maam.create_model, "resnet81")


@PYTORCH
@pytest.mark.parametrize(("block", "channels"), [("BasicBlock", 8), ("Bottleneck", 32)])
@pytest.mark.parametrize("attention", ["mafc", "maam"])
def test_export_and_compile(library, block, channels, attention, exported):
    network, x = nn.Sequential(getattr(library.resnet, block)(channels, 8)), torch.rand(2, channels, 8, 8)
    library.maam.insert_attention(network, attention).eval()
    torch.testing.assert_close(exported(network, x), network(torch.cat((x, x[:1]))))
    if attention == "mafc":
        torch._dynamo.reset()
        torch.testing.assert_close(torch.compile(network, backend="eager", fullgraph=True)(x), network(x))


def test_refused_arguments_leave_the_network_unchanged(library):
    maf_with, maam_with = (partial(partial, kind) for kind in (library.layers.MAF, library.layers.MAAM))
    module, pool = ("cell", "max_pool") if library is MINDCV else ("module", "maxpool")
    built = library.layers.MAFC(8)
    network = create(library, "resnet18") if library is TIMM else shallow_resnet(library)
    before = shapes(network)
    for attention, where, message in (
        ("mafcc", None, "no layer 'mafcc'; did you mean 'mafc'?"),
        ("", None, "no layer ''; known layers: maam, "),
        (16, None, "attention: expected a name, a layer class or a function of the channels, got an object of"),
        (str, None, f"attention: expected a function that returns a {module}, got one that returns a str"),
        (built, None, "got a built MAFC; each block needs its own layer: pass the class, or functools.p"),
        (maf_with(rd_ratio=2.0), None, "rd_ratio: input should be less than or equal to 1, got 2.0"),
        (maf_with(ratio=2), None, "maf: got an unexpected keyword argument 'ratio'"),
        (maam_with(pool=2), None, "attention: MAAM turns (64, 64, 64) into (64, 32, 32); expected a layer"),
        (maam_with(out_channels=4), None, "MAAM turns (64, 64, 64) into (4, 64, 64); expected a layer that ke"),
        (maam_with(out_channels=256), None, "MAAM turns (64, 64, 64) into (256, 64, 64)"),
        (maam_with(out_channels=64), None, "MAAM turns (128, 64, 64) into (64, 64, 64)"),  # a later block
        ("se", "layer9*", "where: no layer of ResNet matches 'layer9*'; its layers have names such as '"),
        ("se", 3, "where: expected a pattern such as 'layer*.*.bn2', or a list of patterns, got 3"),
        ("se", "max*pool", f"where: the number of channels after '{pool}' is unknown, because it has no conv"),
    ):
        assert message in error_of(SpecError, library.maam.insert_attention, network, attention, where=where)
        assert shapes(network) == before
        assert not inserted(network)


@pytest.mark.slow_in("mindcv-maam", "mindcv-mhsa")
@pytest.mark.parametrize("attention", ["coord", "maam", "mhsa"])
def test_a_network_starts_as_it_was(library, attention):
    """With `identity_init`, outputs are the same until gamma changes, also where squeeze and excitation is replaced."""
    network = create(library, library.mobilenet, "cpu", num_classes=3)
    plain = call(network)
    library.maam.insert_attention(network, attention, identity_init=True)
    np.testing.assert_array_equal(call(network), plain)
    gammas = [p for p in (network.get_parameters if library is MINDCV else network.parameters)() if p.shape == (1,)]
    assert gammas
    fill(gammas, 0.1)
    assert not np.array_equal(call(network), plain)


def test_layers_by_name_in_any_network(library):
    network = shallow_resnet(library)
    before = shapes(network)
    assert library.layers.insert_attention(network, "eca", where=["layer*.*.bn2", "conv1"]) is network
    names = ("conv1", *(f"layer{index}.0.bn2" for index in range(1, 5)))
    assert list(inserted(network, library.layers.ECA)) == [f"{name}.attention" for name in names]
    assert before <= shapes(network)
    assert len(shapes(network)) == len(before) + 5
    library.maam.insert_attention(network, "se", where="conv1")  # replaces the layer there
    assert list(inserted(network, library.layers.SE)) == ["conv1.attention"]
    assert before <= shapes(network)
    assert call(network).shape == (2, 3)


def test_networks_without_a_known_block(library):
    blocks = {TIMM: "blocks of timm's ResNet, ", VISION: "blocks of torchvision's ResNet, "}
    message = f"found no block for an attention layer; expected {blocks.get(library, 'a ResNet, ResNeXt or Res')}"
    for network in (create(library, "vgg11" if library is TIMM else "squeezenet1_0"), library.nn.ReLU()):
        assert message in error_of(SpecError, library.maam.insert_attention, network, "se")


class TestTorchvision:
    def test_every_classifier_is_a_function(self):
        network = maam.torchvision.mobilenet_v3_small(attention=MAFC, num_classes=10)
        assert network.classifier[-1].out_features == 10
        assert len(inserted(network, MAFC)) == 9
        same = maam.torchvision.create_model("mobilenet_v3_small", MAFC, num_classes=10)
        assert list(same.state_dict()) == list(network.state_dict())
        assert maam.torchvision.mobilenet_v3_small.__name__ == "mobilenet_v3_small"
        assert set(torch_models.list_models(torch_models)) <= set(dir(maam.torchvision))
        assert callable(maam.torchvision.vit_b_16)
        message = "'maam.torchvision' has no attribute 'resnet19'; did you mean 'resnet"
        assert message in error_of(AttributeError, getattr, maam.torchvision, "resnet19")
        message = "'mafc_v2' is a preset of maam, not a model of torchvision; use "
        assert message in error_of(PresetError, maam.torchvision.create_model, "mafc_v2")

    def test_features(self, images):
        network = maam.torchvision.insert_attention(shallow_resnet(VISION), "mafc").eval()
        maps = create_feature_extractor(network, {"layer2": "map"})(images())
        assert maps["map"].shape[2:] == (4, 4)
