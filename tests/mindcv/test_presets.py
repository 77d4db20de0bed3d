"""The presets in MindCV's registry, driven by MindCV's own functions."""

import mindcv
import mindspore as ms
import numpy as np
import pytest
from mindcv.models import registry

import maam
from maam import spec
from maam.errors import PresetError, WeightsError
from maam.mindcv import presets, register_presets

SMALL = {"num_classes": 10, "width_multiplier": 0.25, "cifar": True}


def made(name="maam_digits", **options):
    return mindcv.create_model(name, **{"num_classes": 10, "in_channels": 1, **options})


@pytest.fixture
def added(monkeypatch):
    """Register presets for the length of a test."""
    for name in ("_model_entrypoints", "_model_to_module", "_model_pretrained_cfgs"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    monkeypatch.setattr(presets, "default_cfgs", dict(presets.default_cfgs))
    return maam.register_preset


def test_every_classifier_is_listed():
    assert mindcv.list_models(module="presets") == maam.list_presets()
    assert mindcv.list_models("maf*") == maam.list_presets("maf*")
    assert "mafc_v2" not in mindcv.list_models(pretrained=True)
    assert mindcv.is_model("mafc_v2")
    assert not mindcv.is_model("mafc_v9")


def test_other_names_of_presets():
    assert mindcv.is_model("MAFCV2")
    assert "MAFCV2" not in mindcv.list_models(module="presets")
    assert mindcv.create_model("MAFCV2", in_channels=1, **SMALL).spec == maam.preset("mafc_v2", in_channels=1, **SMALL)
    plain = maam.mindcv.create_model("MAFCV2", attention=None, **SMALL)
    assert plain.spec == maam.preset("mafc_v2", attention=None, **SMALL)


@pytest.mark.parametrize("name", maam.list_presets())
def test_the_configuration_follows_from_the_spec(name):
    found, node = registry.get_pretrained_cfg(name), maam.preset(name)
    assert (found["url"], found["num_classes"], found["input_size"]) == ("", node.num_classes, node.input_shape)
    assert node.at(found["classifier"]).kind in ("linear", "conv2d")
    assert found["first_conv"] == "" or isinstance(node.at(found["first_conv"]), spec.Conv2d)
    assert registry.get_pretrained_cfg_value(name, "classifier") == spec.head(node)


def test_arguments_reach_the_preset():
    cell = mindcv.create_model("mafc_v2", in_channels=1, attention="se", drop_rate=None, **SMALL)
    expected = maam.preset("mafc_v2", in_channels=1, attention="se", **SMALL)
    assert cell.spec == expected
    assert cell.default_cfg == registry.get_pretrained_cfg("mafc_v2")
    assert sum(p.size for p in cell.trainable_params()) == expected.num_parameters


def test_the_defaults_are_those_of_mindcv():
    assert made(num_classes=1000, in_channels=3).spec == mindcv.create_model("maam_digits").spec
    assert presets.maam_digits(num_classes=10).spec == made(in_channels=3).spec


def test_a_seed_draws_the_same_weights_everywhere():
    own = maam.mindspore.build(maam.preset("maam_digits"), seed=3)
    x = ms.Tensor(np.ones((1, 1, 8, 8), np.float32))
    assert np.array_equal(made(seed=3)(x).asnumpy(), own(x).asnumpy())


@pytest.mark.parametrize("mode", ["graph", "pynative"], indirect=True)
def test_a_training_step(mode, images, train):
    losses, unchanged = train(made(seed=0), images(8, 1))
    assert losses[1] < losses[0]
    assert unchanged == []


def test_no_published_weights():
    with pytest.raises(WeightsError, match=r"mafc_v2: there are no published weights; .* by checkpoint_path"):
        mindcv.create_model("mafc_v2", pretrained=True)


@pytest.mark.parametrize("option", ["features_only", "wdth_multiplier"])
def test_an_unknown_option(option):
    with pytest.raises(PresetError, match=f"preset 'mafc_v2' has no option '{option}'; its options: num_classes"):
        mindcv.create_model("mafc_v2", **{option: True})


def test_registering_again_changes_nothing():
    before = registry.model_entrypoint("mafc_v2")
    assert register_presets("mafc_*") == maam.list_presets("mafc_*")
    assert registry.model_entrypoint("mafc_v2") is before


def test_a_preset_of_ones_own(added):
    def my_net(num_classes=10, in_channels=1, image_size=8):
        node = maam.preset("maam_digits", num_classes=num_classes, in_channels=in_channels, image_size=image_size)
        return node.replace(name="my_net")

    added(my_net)
    assert not mindcv.is_model("my_net")
    assert register_presets("my_*") == ["my_net"]
    assert made("my_net", num_classes=4).spec.num_classes == 4


def test_what_gives_no_logits_is_left_out(added):
    added(lambda: maam.preset("maam_digits").until("reduce"), "my_features")
    assert register_presets("my_*") == []
    assert not mindcv.is_model("my_features")


def test_a_name_that_is_taken(added):
    added(lambda: maam.preset("maam_digits"), "resnet18")
    with pytest.raises(PresetError, match=r"MindCV has a model 'resnet18' of mindcv.models.resnet already; give"):
        register_presets("resnet*")
    assert registry.model_entrypoint("resnet18").__module__ == "mindcv.models.resnet"
