"""`create_model` with checkpoints: what MindCV loads, what maam loads, what is said of a file that does not fit."""

import mindcv
import mindspore as ms
import numpy as np
import pytest

import maam
import maam.mindcv
from maam.errors import PresetError, SpecError, WeightsError
from maam.mindcv import create_model
from maam.mindspore import MAFC

DIGITS = {"num_classes": 10, "in_channels": 1}
RESNET = {"num_classes": 10}


def same(one, other):
    """Whether two cells have equal parameters, where both have one of a name; and the names of one alone."""
    theirs = {p.name: p.asnumpy() for p in other.get_parameters()}
    own = {p.name: p.asnumpy() for p in one.get_parameters()}
    assert all(np.array_equal(own[name], theirs[name]) for name in own.keys() & theirs.keys())
    return sorted(own.keys() - theirs.keys())


@pytest.fixture
def digits(tmp_path):
    """A trained preset, its weights file and the checkpoints made of it."""
    model = mindcv.create_model("maam_digits", seed=5, **DIGITS)
    maam.mindspore.save_weights(model, tmp_path / "w.safetensors")
    maam.convert(tmp_path / "w.safetensors", tmp_path / "converted.ckpt")
    ms.save_checkpoint(model, str(tmp_path / "saved.ckpt"))
    return model, tmp_path


@pytest.fixture
def resnet(tmp_path):
    """A checkpoint of MindCV's own ResNet."""
    network = mindcv.create_model("resnet18", **RESNET)
    ms.save_checkpoint(network, str(tmp_path / "resnet.ckpt"))
    return network, str(tmp_path / "resnet.ckpt")


@pytest.mark.parametrize("file", ["converted.ckpt", "saved.ckpt"])
def test_mindcv_loads_a_checkpoint_of_a_preset(digits, file):
    loaded = mindcv.create_model("maam_digits", checkpoint_path=str(digits[1] / file), **DIGITS)
    assert same(loaded, digits[0]) == []


def test_mindcv_refuses_a_weights_file(digits):
    with pytest.raises(ValueError, match="the checkpoint file format must same with 'format'"):
        mindcv.create_model("maam_digits", checkpoint_path=str(digits[1] / "w.safetensors"), **DIGITS)


@pytest.mark.parametrize("file", ["converted.ckpt", "saved.ckpt", "w.safetensors"])
def test_a_preset_with_weights(digits, file):
    loaded = create_model("maam_digits", checkpoint_path=str(digits[1] / file), **DIGITS)
    assert same(loaded, digits[0]) == []
    with pytest.raises(WeightsError, match=r"classifier.fc2.weight .* instead of"):
        create_model("maam_digits", 4, in_channels=1, checkpoint_path=str(digits[1] / file))


def test_averaged_weights_of_a_preset(digits):
    model, folder = digits
    records = [{"name": f"ema.{p.name}", "data": ms.Tensor(p.asnumpy())} for p in model.get_parameters()]
    ms.save_checkpoint(records, str(folder / "ema.ckpt"))
    loaded = create_model("maam_digits", checkpoint_path=str(folder / "ema.ckpt"), ema=True, **DIGITS)
    assert same(loaded, model) == []


def test_a_plain_checkpoint_fills_all_but_the_new_layers(resnet):
    network = create_model("resnet18", attention="mafc", checkpoint_path=resnet[1], **RESNET)
    fresh = same(network, resnet[0])
    assert fresh
    assert all(".bn2.attention." in name for name in fresh)
    before = mindcv.create_model("resnet18", checkpoint_path=resnet[1], **RESNET)
    assert same(maam.mindcv.insert_attention(before, "mafc"), resnet[0]) == fresh


def test_a_checkpoint_with_attention_fills_everything(tmp_path):
    trained = create_model("mobilenet_v2_035_96", attention="mafc", **RESNET)
    ms.save_checkpoint(trained, str(tmp_path / "own.ckpt"))
    loaded = create_model("mobilenet_v2_035_96", attention="mafc", checkpoint_path=str(tmp_path / "own.ckpt"), **RESNET)
    assert same(loaded, trained) == []


def test_pretrained_weights_are_loaded_by_mindcv(resnet, monkeypatch):
    """No network here: the download is replaced, the rest is MindCV's."""
    from mindcv.models import helpers

    monkeypatch.setattr(helpers.DownLoad, "download_url", lambda self, url, path: None)
    monkeypatch.setattr(helpers, "load_checkpoint", lambda path: ms.load_checkpoint(resnet[1]))
    network = create_model("resnet18", pretrained=True, attention="se", **RESNET)
    found = {p.name: p.asnumpy() for p in network.get_parameters()}
    body = [p for p in resnet[0].get_parameters() if "classifier" not in p.name]  # MindCV leaves 10 classes as they are
    assert len(body) > 60
    assert all(np.array_equal(found[p.name], p.asnumpy()) for p in body)


@pytest.mark.parametrize("attention", [None, "se"])
def test_a_checkpoint_of_another_network(digits, attention):
    path = str(digits[1] / "saved.ckpt")
    with pytest.raises(WeightsError, match=r"saved.ckpt: does not fit the model; missing: conv1.weight, "):
        create_model("resnet18", checkpoint_path=path, attention=attention)
    with pytest.raises(WeightsError, match=r"converted.ckpt: does not fit the model"):
        create_model("cnn", checkpoint_path=str(digits[1] / "converted.ckpt"))


def test_bad_files(digits, tmp_path):
    (tmp_path / "broken.ckpt").write_bytes(b"\xff" * 50)
    with pytest.raises(WeightsError, match=r"gone.ckpt: no such file"):
        create_model("resnet18", checkpoint_path="gone.ckpt")
    with pytest.raises(WeightsError, match=r"gone.safetensors: no such file"):
        create_model("maam_digits", checkpoint_path="gone.safetensors")
    with pytest.raises(WeightsError, match=r"w.safetensors: expected a MindSpore checkpoint \(.ckpt\)"):
        create_model("resnet18", checkpoint_path=str(tmp_path / "w.safetensors"))
    with pytest.raises(WeightsError, match=r"broken.ckpt: not a MindSpore checkpoint, damaged"):
        create_model("maam_digits", checkpoint_path=str(tmp_path / "broken.ckpt"), **DIGITS)
    with pytest.raises(WeightsError, match="both given; leave one out"):
        create_model("resnet18", pretrained=True, checkpoint_path="x.ckpt")


def test_attention_of_a_preset_is_its_own_option():
    small = {"width_multiplier": 0.25, "cifar": True}
    network = create_model("mobilenet_v2", 10, attention="se", **small)
    assert network.spec == maam.preset("mobilenet_v2", num_classes=10, attention="se", **small)
    with pytest.raises(PresetError, match="preset 'maam_digits' has no option 'attention'"):
        create_model("maam_digits", attention="se")


@pytest.mark.parametrize("given", [MAFC, "mafc"])
def test_a_preset_takes_a_layer_class_by_its_name(given):
    small = {"width_multiplier": 0.25, "cifar": True, "num_classes": 10}
    expected = maam.preset("mobilenet_v2", attention="mafc", **small)
    assert create_model("mobilenet_v2", attention=given, **small).spec == expected
    assert mindcv.create_model("mobilenet_v2", attention=given, **small).spec == expected


def test_none_takes_a_presets_attention_out_and_nothing_leaves_it():
    small = {"width_multiplier": 0.25, "cifar": True, "num_classes": 10}
    assert create_model("mafc_v2", **small).spec == maam.preset("mafc_v2", **small)
    plain = maam.preset("mafc_v2", attention=None, **small)
    assert create_model("mafc_v2", attention=None, **small).spec == plain
    assert mindcv.create_model("mafc_v2", attention="none", **small).spec == plain
    with pytest.raises(PresetError, match="preset 'maam_digits' has no option 'attention'"):
        create_model("maam_digits", attention=None)


def test_every_block_is_not_for_presets():
    with pytest.raises(PresetError, match="'mafc_v3' is a preset, whose spec says where attention stands"):
        create_model("mafc_v3", attention="se", every_block=True)
    message = r"'mafc_v2' is a preset and takes a layer by name, or as the class of maam.mindspore, got "
    with pytest.raises(SpecError, match=f"{message}function"):
        create_model("mafc_v2", attention=lambda channels: MAFC(channels))
    with pytest.raises(SpecError, match=f"{message}{__name__}.Other"):
        create_model("mafc_v2", attention=Other)
    small = {"num_classes": 10, "width_multiplier": 0.25}
    assert (
        create_model("mafc_v2", attention="SE", **small).spec == create_model("mafc_v2", attention="se", **small).spec
    )


class Other:
    """No layer of ours."""


def test_unknown_names():
    with pytest.raises(PresetError, match="no model 'resnet81'; did you mean resnet18"):
        create_model("resnet81", attention="se")
    with pytest.raises(PresetError, match=r"no model 'zzzzzz'; mindcv.list_models\(\) shows all of them"):
        create_model("zzzzzz")
    with pytest.raises(SpecError, match="no block to put attention into"):
        create_model("squeezenet1_0", attention="se")
