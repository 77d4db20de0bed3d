"""The presets in timm's registry, driven by timm's own functions."""

import copy

import pytest
import timm
import torch
from timm.models import _registry as registry

import maam
from maam import spec
from maam.errors import MaamError, PresetError, SpecError, WeightsError
from maam.timm import presets, register_presets
from maam.torch import build
from maam.training import read_recipe

NO_MAP = ("mlp", "rnn")


@pytest.fixture
def added(monkeypatch):
    """Register presets for the length of a test."""
    for name, value in list(vars(registry).items()):
        if name.startswith("_mod") and isinstance(value, (dict, set)):
            monkeypatch.setattr(registry, name, copy.deepcopy(value))
    monkeypatch.setattr(presets, "default_cfgs", dict(presets.default_cfgs))
    monkeypatch.setattr(presets, "__all__", list(presets.__all__))
    return maam.register_preset


def test_every_classifier_is_listed():
    assert timm.list_models(module="presets") == maam.list_presets()
    assert timm.list_models("maf*") == maam.list_presets("maf*")
    assert timm.list_models("maam_*") == maam.list_presets("maam_*")
    assert timm.list_models("maf*", pretrained=True) == []
    assert timm.is_model("mafc_v2")
    assert not timm.is_model("mafc_v9")


def test_other_names_of_presets(made):
    assert timm.is_model("MAFCV2")
    model = timm.create_model("MAFCV2", width_multiplier=0.25, cifar=True, num_classes=3)
    assert model.spec == made("mafc_v2", num_classes=3).spec
    assert model.pretrained_cfg["architecture"] == "mafc_v2"
    plain = maam.timm.create_model("MAFCV2", attention=None, width_multiplier=0.25, cifar=True, num_classes=3)
    assert plain.spec == made("mafc_v2", num_classes=3, attention="none").spec


@pytest.mark.parametrize("name", maam.list_presets())
def test_the_configuration_follows_from_the_spec(name):
    cfg, node = timm.get_pretrained_cfg(name), maam.preset(name)
    assert (cfg.architecture, cfg.num_classes, cfg.input_size) == (name, node.num_classes, node.input_shape)
    assert cfg.classifier == spec.head(node)
    assert cfg.fixed_input_size == (spec.input_rule(node).size is not None)
    assert cfg.interpolation == "bilinear"
    assert not cfg.has_weights


@pytest.mark.parametrize("name", maam.list_presets("maf*"))
def test_images_as_in_the_recipe(name, made):
    images = read_recipe("imagenet_maf").images
    config = timm.data.resolve_model_data_config(timm.create_model(name, width_multiplier=0.1))
    assert (config["mean"], config["std"]) == (images.mean, images.std)
    assert config["input_size"] == (3, images.size, images.size)
    assert config["crop_pct"] == 224 / 256


def test_pixels_as_they_are():
    config = timm.data.resolve_model_data_config(timm.create_model("maam_digits"))
    assert (config["mean"], config["std"], config["crop_pct"]) == ((0.0,), (1.0,), 1.0)
    transform = timm.data.create_transform(**{**config, "input_size": (3, 8, 8)})
    from PIL import Image

    pixels = transform(Image.new("RGB", (8, 8), (255, 0, 51)))
    assert torch.allclose(pixels[:, 0, 0], torch.tensor([1.0, 0.0, 0.2]))


def test_first_convolutions():
    assert timm.get_pretrained_cfg("mafc_v2").first_conv == "backbone.init_conv.conv"
    assert timm.get_pretrained_cfg("maam_cifar10").first_conv == tuple(f"agents.{i}.conv1" for i in range(3))
    assert timm.get_pretrained_cfg("mlp").first_conv is None


@pytest.mark.parametrize("name", maam.list_presets())
def test_the_same_network_as_by_build(name, images):
    small = {"width_multiplier": 0.1, "cifar": True} if "_v" in name else {}
    small = {"channels": (8, 16), "img_size": 32} if name == "maam_imagenet" else small
    model = timm.create_model(name, **small).eval()
    own = build(model.spec).eval()
    assert list(model.state_dict()) == list(own.state_dict())
    own.load_state_dict(model.state_dict())
    x = images(model.spec.input_shape[1], model.spec.input_shape[0])
    assert torch.equal(model(x), own(x))
    assert (model.feature_info == []) == (name in NO_MAP)


def test_arguments_reach_the_preset(made):
    model = made("mafc_v2", num_classes=10, in_chans=1, img_size=(64, 64), attention="se", drop_rate=None)
    expected = maam.preset(
        "mafc_v2", num_classes=10, in_channels=1, image_size=64, attention="se", width_multiplier=0.25, cifar=True
    )
    assert model.spec == expected
    assert model.pretrained_cfg["input_size"] == (3, 64, 64)


def test_the_size_of_the_images_follows_the_options(made):
    config = timm.data.resolve_model_data_config(made("mafc_v2"))
    assert config["input_size"] == (3, 32, 32)
    assert timm.create_model("maam_cifar10", img_size=16).pretrained_cfg["input_size"] == (3, 16, 16)


def test_a_seed_draws_the_same_weights_everywhere():
    own, model = build("maam_digits", seed=3), timm.create_model("maam_digits", seed=3)
    assert all(torch.equal(tensor, own.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_device_and_dtype():
    model = timm.create_model("maam_digits", device="meta", dtype=torch.float64)
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.float64)}


@pytest.mark.parametrize("flag", ["exportable", "scriptable", "no_jit"])
def test_timms_flags_are_taken(flag, images):
    model = timm.create_model("maam_digits", **{flag: True})
    assert model(images(8, 1)).shape == (2, 10)


def test_a_preset_of_ones_own(added, images):
    added(lambda num_classes=3: maam.preset("maam_digits", num_classes=num_classes).replace(name="own"), "own_digits")
    assert not timm.is_model("own_digits")
    assert register_presets("own_*") == ["own_digits"] == register_presets("own_*")
    assert timm.create_model("own_digits", num_classes=4)(images(8, 1)).shape == (2, 4)
    assert timm.get_pretrained_cfg("own_digits").mean == (0.0,)


def test_what_is_no_classifier_stays_out(added):
    body = maam.preset("maam_digits").until("reduce")
    added(lambda: body, "own_features")
    assert register_presets("own_*") == []
    assert not timm.is_model("own_features")


def test_a_name_that_timm_has(added):
    added(lambda: maam.preset("maam_digits"), "resnet18")
    added(lambda: maam.preset("maam_digits"), "own_first")
    with pytest.raises(PresetError) as caught:
        register_presets("*")
    assert str(caught.value) == (
        "timm has a model 'resnet18' of timm.models.resnet already; give one of the two another name, the preset by "
        "maam.register_preset(factory, name)"
    )
    assert not timm.is_model("own_first")
    assert timm.create_model("resnet18").num_classes == 1000


@pytest.mark.parametrize(
    ("name", "options", "kind", "message"),
    [
        (
            "mafc_v2",
            {"pretrained": True},
            WeightsError,
            "mafc_v2: there are no published weights; leave pretrained out",
        ),
        (
            "mafc_v2",
            {"drop_path_rate": 0.1},
            PresetError,
            "'mafc_v2' has no option 'drop_path_rate'; its options: num_",
        ),
        ("mafc_v2", {"in_channels": 1}, PresetError, "has no option 'in_channels' here; timm calls it 'in_chans'"),
        ("mafc_v2", {"image_size": 64}, PresetError, "has no option 'image_size' here; timm calls it 'img_size'"),
        (
            "mafc_v2",
            {"img_size": (64, 32)},
            SpecError,
            "img_size: expected one number or two that are equal, got (64, ",
        ),
        ("mafc_v2", {"num_classes": -1}, SpecError, "num_classes: input should be greater than or equal to 1"),
        ("mafc_v2", {"global_pool": "max"}, SpecError, "global_pool: expected 'avg' or '', and '' with num_classes 0"),
        ("maam_digits", {"global_pool": "avg"}, SpecError, "global_pool: expected '', and '' with num_classes 0 alone"),
        ("mafc_v2", {"global_pool": ""}, SpecError, "global_pool: expected 'avg' or ''"),
        ("mafc_v2", {"drop_rate": 1.5}, SpecError, "drop_rate: expected a number from 0 to below 1, got 1.5"),
        (
            "maam_digits",
            {"drop_rate": 0.5, "dropout": 0.5},
            SpecError,
            "drop_rate: the preset has dropout there already",
        ),
        ("mlp", {"features_only": True}, PresetError, "'mlp' has no feature maps, so it has no features_only"),
        ("maam_digits", {"fusion": "max"}, SpecError, "fusion: input should be 'softmax', 'mean' or 'dynamic'"),
    ],
)
def test_what_cannot_be(name, options, kind, message):
    with pytest.raises(MaamError) as caught:
        timm.create_model(name, **options)
    assert type(caught.value) is kind
    assert message in str(caught.value)
