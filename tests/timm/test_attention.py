"""Layers of ours in timm's ResNets, EfficientNets and MobileNets."""

import copy
from functools import partial

import pytest
import timm
import torch
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from timm.utils import reparameterize_model
from torch import nn

import maam.timm
from maam.errors import PresetError, SpecError, WeightsError
from maam.timm import create_model, insert_attention, list_attention
from maam.torch import CBAM, MAAM, MAF, MAFC, SE
from maam.torch.layers import Layer

SMALL_RESNETS = {
    "basic": partial(ResNet, BasicBlock, (1, 1, 1, 1), num_classes=3, channels=(8, 16, 16, 16), stem_width=8),
    "bottleneck": partial(ResNet, Bottleneck, (1, 1, 1, 1), num_classes=3, channels=(8, 8, 8, 8), stem_width=8),
}
PLACES = {  # how many blocks have attention, how many there are, and where the first stands
    "resnet10t": (0, 4, "layer1.0.se"),
    "seresnet18": (8, 8, "layer1.0.se"),
    "skresnet18": (0, 8, "layer1.0.se"),
    "ecaresnet26t": (8, 8, "layer1.0.se"),
    "resnext50_32x4d": (0, 16, "layer1.0.se"),
    "res2net50_14w_8s": (0, 16, "layer1.0.se"),
    "mobilenetv3_small_050": (9, 11, "blocks.0.0.se"),
    "mobilenetv2_035": (0, 17, "blocks.0.0.se"),
    "efficientnet_b0": (16, 16, "blocks.0.0.se"),
    "efficientnet_es": (0, 18, "blocks.0.0.se"),
    "mobilenetv4_conv_small": (0, 12, "blocks.2.0.se"),
    "mixnet_s": (13, 16, "blocks.0.0.se"),
    "lcnet_035": (2, 13, "blocks.0.0.se"),
}


class Own(Layer, composite=maam.spec.maf):
    """A layer that a user has made."""


def new_layers(network, kind=MAFC):
    return [name for name, module in network.named_modules() if isinstance(module, kind)]


def without_arrays(name):
    with torch.device("meta"):
        return timm.create_model(name, num_classes=3)


@pytest.mark.parametrize("name", PLACES)
def test_places(name):
    had, blocks, first = PLACES[name]
    plain = without_arrays(name)
    network = insert_attention(copy.deepcopy(plain), "mafc")
    found = new_layers(network)
    assert len(found) == (had or blocks)
    kept = {key for key in plain.state_dict() if ".se." not in key}
    assert kept == {key for key in network.state_dict() if ".se." not in key}
    everywhere = new_layers(insert_attention(copy.deepcopy(plain), "mafc", every_block=True))
    assert len(everywhere) == blocks
    assert everywhere[0] == first
    assert set(found) <= set(everywhere)


@pytest.mark.parametrize("attention", ["maam", "mafb", "cbam", Own, partial(MAFC, rd_ratio=1 / 4), nn.Identity])
@pytest.mark.parametrize("kind", SMALL_RESNETS)
def test_a_resnet_trains(kind, attention, images, gradients):
    """MAAM ends in a ReLU, to whose output a ResNet adds in place."""
    network = insert_attention(SMALL_RESNETS[kind](), attention)
    assert network(images()).shape == (2, 3)
    assert gradients(network, images()) == []


@pytest.mark.parametrize("attention", list_attention())
def test_a_mobilenet_trains(attention, images, gradients):
    network = create_model("mobilenetv3_small_050", num_classes=3, attention=attention, every_block=True)
    assert gradients(network, images()) == []


def test_the_gate_stands_in_front_of_the_addition():
    block, x = SMALL_RESNETS["basic"]().eval().layer1[0], torch.rand(2, 64, 8, 8)
    plain, shortcut = block(x), block.act2(block.downsample(x))
    insert_attention(block, lambda channels: SE(channels))
    nn.init.zeros_(block.se.fc2.weight)
    nn.init.constant_(block.se.fc2.bias, 40.0)  # sigmoid(40) = 1
    assert torch.equal(block(x), plain)
    nn.init.constant_(block.se.fc2.bias, -120.0)  # 0
    assert torch.equal(block(x), shortcut)


def test_weights_of_the_plain_network(images):
    plain = timm.create_model("mobilenetv3_small_050", num_classes=3)
    network = create_model("mobilenetv3_small_050", num_classes=3, attention=MAFC)
    found = network.load_state_dict(plain.state_dict(), strict=False)
    assert all(".se." in key for key in (*found.missing_keys, *found.unexpected_keys))
    inserted = insert_attention(plain, MAFC)
    assert inserted is plain
    assert list(plain.state_dict()) == list(network.state_dict())
    assert torch.equal(plain.conv_stem.weight, network.conv_stem.weight)


def test_a_checkpoint_of_the_network_with_attention(images):
    network = create_model("mobilenetv3_small_050", num_classes=3, attention="mafc").eval()
    torch.save(network.state_dict(), "model.pth")
    with pytest.raises(WeightsError, match=r"none.pth: no such file"):
        create_model("mobilenetv3_small_050", checkpoint_path="none.pth")
    again = create_model("mobilenetv3_small_050", num_classes=3, attention="mafc", checkpoint_path="model.pth")
    x = images()
    assert torch.equal(again.eval()(x), network(x))


def test_features_only(images):
    extractor = create_model("resnet10t", features_only=True, attention="mafc", out_indices=(1, 2))
    assert [m.shape[1] for m in extractor(images())] == [64, 128]
    assert new_layers(extractor) == ["layer1.0.se", "layer2.0.se"]
    mobile = create_model("mobilenetv3_small_050", features_only=True, attention="mafc")
    assert len(new_layers(mobile)) == 9
    assert len(mobile(images())) == 5


def test_a_second_layer_replaces_the_first():
    network = insert_attention(without_arrays("resnet10t"), "mafc")
    insert_attention(network, "se")
    assert new_layers(network) == []
    assert len(new_layers(network, SE)) == 4


def test_device_dtype_and_mode():
    network = SMALL_RESNETS["basic"]().double().eval()
    layer = insert_attention(network, "mafc").layer1[0].se
    assert {p.dtype for p in layer.parameters()} == {torch.float64}
    assert not layer.SpatialGate.spatial.bn.training
    assert layer(torch.rand(1, 8, 4, 4, dtype=torch.float64)).dtype == torch.float64


def test_a_layers_own_defaults_hold():
    network = insert_attention(without_arrays("mobilenetv3_small_050"), MAF)
    assert network.blocks[0][0].se.arguments == {"channels": 16}


def test_without_attention_it_is_timms_own():
    model = create_model("resnet10t", num_classes=3)
    assert list(model.state_dict()) == list(timm.create_model("resnet10t", num_classes=3).state_dict())


def test_a_preset_has_an_option_for_it():
    model = create_model("mobilenet_v2", attention="se", cifar=True, width_multiplier=0.25)
    assert model.spec == maam.preset("mobilenet_v2", attention="se", cifar=True, width_multiplier=0.25)
    with pytest.raises(PresetError, match="'maam_digits' has no option 'attention'"):
        create_model("maam_digits", attention="se")


@pytest.mark.parametrize("given", [MAFC, "mafc"])
def test_a_preset_takes_a_layer_class_by_its_name(given):
    model = create_model("mobilenet_v2", attention=given, cifar=True, width_multiplier=0.25)
    assert model.spec == maam.preset("mobilenet_v2", attention="mafc", cifar=True, width_multiplier=0.25)
    if hasattr(model, "_model_args"):  # the oldest timm does not note them
        assert model._model_args["attention"] == "mafc"


def test_none_takes_a_presets_attention_out_and_nothing_leaves_it():
    small = {"cifar": True, "width_multiplier": 0.25}
    assert create_model("mafc_v2", **small).spec == maam.preset("mafc_v2", **small)
    plain = maam.preset("mafc_v2", attention=None, **small)
    assert create_model("mafc_v2", attention=None, **small).spec == plain
    assert timm.create_model("mafc_v2", attention="none", **small).spec == plain
    with pytest.raises(PresetError, match="'maam_digits' has no option 'attention'"):
        create_model("maam_digits", attention=None)
    names = [list(create_model("resnet10t", **given).state_dict()) for given in ({}, {"attention": None})]
    assert names[0] == names[1]


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (
            {"attention": "se", "every_block": True},
            PresetError,
            "'mafc_v2' is a preset, whose spec says where attention",
        ),
        (
            {"attention": "maam"},
            SpecError,
            "mobilenet: attention: input should be 'se', 'cbam', 'maf', 'mafc' or 'mafb'",
        ),
        ({"attention": MAAM}, SpecError, "mobilenet: attention: input should be 'se', 'cbam', 'maf', 'mafc' or 'mafb'"),
        (
            {"attention": partial(MAFC, rd_ratio=0.5)},
            SpecError,
            "attention: 'mafc_v2' is a preset and takes a layer by name",
        ),
    ],
)
def test_what_a_preset_does_not_take(options, kind, message):
    with pytest.raises(kind) as caught:
        create_model("mafc_v2", cifar=True, **options)
    assert str(caught.value).startswith(message)


def test_a_presets_model_takes_no_layer():
    model = timm.create_model("mafc_v2", cifar=True, width_multiplier=0.25)
    with pytest.raises(
        SpecError, match="PresetModel: a model of maam has its attention in its spec; choose it when the"
    ):
        insert_attention(model, "se")


class TestTimmsOwnArguments:
    """`attn_layer` and `se_layer` take our classes as they are: timm finds out what each accepts."""

    @pytest.mark.parametrize("layer", [MAF, MAFC, SE, CBAM])
    def test_resnet(self, layer, images, gradients):
        network = SMALL_RESNETS["basic"](block_args={"attn_layer": layer})
        assert len(new_layers(network, layer)) == 4
        assert gradients(network, images()) == []

    @pytest.mark.parametrize(("layer", "reduced"), [(MAFC, True), (MAAM, False)])
    def test_efficientnet(self, layer, reduced, images, gradients):
        network = timm.create_model("semnasnet_050", num_classes=3, se_layer=layer)
        found = network.blocks[2][0].se
        assert ("rd_ratio" in found.arguments) == reduced
        assert found.arguments["act_layer"] == "relu"
        assert gradients(network, images()) == []

    @pytest.mark.parametrize("layer", [MAFC, CBAM])
    def test_create_attn(self, layer):
        made = timm.layers.create_attn(layer, 16, rd_ratio=1 / 8, act_layer=nn.SiLU, gate_layer=nn.Hardsigmoid)
        assert made(torch.rand(2, 16, 4, 4)).shape == (2, 16, 4, 4)


@pytest.mark.parametrize("attention", ["mafc", "maam"])
def test_fusion(attention, images):
    """timm fuses its own layers, and finds ours, copied or not."""
    network, x = insert_attention(SMALL_RESNETS["basic"](), attention), images()
    network(x)  # statistics that are not 0 and 1
    network.eval()
    fused = reparameterize_model(network)
    found = [module for module in fused.modules() if isinstance(module, Layer)]
    assert len(found) == 4
    assert not any(isinstance(m, nn.BatchNorm2d) for layer in found for m in layer.modules())
    torch.testing.assert_close(fused(x), network(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("attention", ["mafc", "maam"])
def test_export(attention, images, exported):
    network = insert_attention(SMALL_RESNETS["basic"](), attention).eval()
    x = images()
    torch.testing.assert_close(exported(network, x), network(torch.cat((x, x[:1]))))


def test_onnx(images):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    network = insert_attention(SMALL_RESNETS["basic"](), "mafc").eval()
    x = images()
    torch.onnx.export(network, (x,), "model.onnx", dynamo=True, verbose=False)
    session = runtime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), network(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "attention", "message"),
    [
        ("vgg11", "mafc", "VGG: no block to put attention into; expected blocks of timm's ResNet, EfficientNet, Mobil"),
        ("resnet10t", "mafcc", "no layer 'mafcc'; did you mean 'mafc'? There are maam, maf, mafc, mafb, se, cbam"),
        ("resnet10t", 16, "attention: expected a name, a layer class or a function of the channels, got an object of"),
        ("resnet10t", partial(MAAM, pool=2), "attention: MAAM turns (64, 64, 64) into (64, 32, 32); expected a layer"),
        ("resnet10t", str, "attention: expected a function that returns a module, got a str"),
        ("resnet10t", partial(MAF, rd_ratio=2.0), "rd_ratio: input should be less than or equal to 1, got 2.0"),
        ("resnet10t", partial(MAF, ratio=2), "maf: got an unexpected keyword argument 'ratio'"),
    ],
)
def test_what_cannot_be(name, attention, message):
    network = without_arrays(name)
    before = list(network.state_dict())
    with pytest.raises(SpecError) as caught:
        insert_attention(network, attention)
    assert message in str(caught.value)
    assert list(network.state_dict()) == before
