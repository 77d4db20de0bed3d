"""Weights files of maam, checkpoints of PyTorch and folders of `save_for_hf`, loaded with the functions of timm."""

import json
from functools import partial
from pathlib import Path
from re import escape

import numpy as np
import pytest

torch, timm = map(pytest.importorskip, ("torch", "timm"))

from torch import nn  # noqa: E402

import maam  # noqa: E402
from maam.errors import WeightsError  # noqa: E402
from maam.torch import build, load, load_weights, save_weights  # noqa: E402
from maam.torch.layers import Layer  # noqa: E402
from maam.weights.sets import SeveralSetsWarning  # noqa: E402
from tests.errors import error_of  # noqa: E402

pytestmark = pytest.mark.usefixtures("seeded")
FILE, FOLDER = "model.safetensors", "local-dir:folder"
slow = partial(pytest.param, marks=pytest.mark.slow)


def saved(name="mafc_v3_small", **options):
    """Write a weights file of a network with three classes, and return the network."""
    small = {"width_multiplier": 0.25, "cifar": True, "num_classes": 3} if name.startswith("mafc") else {}
    model = build(maam.preset(name, **{**small, **options}), seed=1).eval()
    save_weights(model, FILE)
    return model


def from_file(made, name="mafc_v3_small", path=FILE, **options):
    return made(name, pretrained=True, pretrained_cfg_overlay={"file": path}, **options).eval()


def different(one, other):
    """Return the names of the arrays that are not equal."""
    first, second = (model.state_dict() for model in (one, other))
    assert list(first) == list(second)
    return [name for name in first if not torch.equal(first[name], second[name])]


def test_a_weights_file_and_a_checkpoint_of_pytorch(made, images):
    own, x = saved(), images()
    assert torch.equal(from_file(made, num_classes=3)(x), own(x))
    assert torch.equal(made("mafc_v3_small", num_classes=3, checkpoint_path=FILE).eval()(x), own(x))
    state = own.state_dict()
    for content in (
        {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        {f"model.{name}": tensor for name, tensor in state.items()},
    ):
        torch.save(content, "model.pth")
        assert torch.equal(from_file(made, path="model.pth", num_classes=3)(x), own(x))
    overlay = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": state}}
    assert torch.equal(made("mafc_v3_small", num_classes=3, **overlay).eval()(x), own(x))


@pytest.mark.parametrize("num_classes", [5, 0, 1000])
def test_other_classes(num_classes, made, images):
    """The file determines its number of classes, 3, and not the configuration of timm with 1000."""
    own, x = saved(), images()
    model = from_file(made, num_classes=num_classes)
    assert torch.equal(model.forward_features(x), from_file(made, num_classes=3).forward_features(x))
    pre_logits = model.forward_head(model.forward_features(x), pre_logits=True)
    assert torch.equal(own.classifier(pre_logits[..., None, None]), own(x))
    assert model(x).shape[1] == (num_classes or model.head_hidden_size)


def test_gray_images(made, images):
    whole, x = saved("maam_cifar10"), images(channels=1)
    model = from_file(made, "maam_cifar10", in_chans=1)
    assert torch.allclose(model(x), whole(x.expand(-1, 3, -1, -1)), atol=1e-5)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels(channels, made, images):
    own = saved()
    nn.init.uniform_(own.backbone.data_bn.weight)  # new ones are all 1
    save_weights(own, FILE)
    model = from_file(made, num_classes=3, in_chans=channels)
    found, expected = model.state_dict(), own.state_dict()
    kernel, norm = "backbone.init_conv.conv.weight", "backbone.data_bn.weight"
    assert found[kernel].shape[1] == channels
    if channels == 1:
        assert torch.allclose(found[kernel], expected[kernel].sum(1, keepdim=True))
    assert torch.allclose(found[norm], expected[norm].mean().expand(channels))
    assert model(images(channels=channels)).isfinite().all()


def test_features_only(made, images):
    saved()
    x = images()
    maps = from_file(made, features_only=True)(x)
    _, expected = from_file(made, num_classes=3).forward_intermediates(x)
    assert all(torch.equal(a, b) for a, b in zip(maps, expected, strict=True))


def test_a_model_of_timm_is_a_model_of_maam(made, images):
    model, other = (made("mafc_v3_small", num_classes=3).eval() for _ in range(2))
    save_weights(model, FILE)
    x = images()
    assert torch.equal(load(FILE).eval()(x), model(x))
    load_weights(other, FILE)
    assert torch.equal(other(x), model(x))


def test_a_file_that_computes_something_else(made):
    for name, saved_as, options, message in (
        ("maam_digits", {"act_layer": "silu"}, {}, "agents.0.act1.function is 'silu' in the file and 'relu' in the m"),
        ("maam_digits", {"fusion": "mean"}, {}, r"agents.merge is 'weighted' in the file and 'softmax' in the model"),
        ("mafc_v3_small", {"attention": "se"}, {}, "is a scale in the file and a sequential in the model"),
        ("mafc_v3_small", {}, {"cifar": False}, "stride is 1 in the file and 2 in the model"),
    ):
        saved(name, **saved_as)
        with pytest.raises(WeightsError, match=f"{FILE}.*{escape(message)}"):
            from_file(made, name, num_classes=3, **options)


def test_files_that_do_not_fit(made):
    with pytest.raises(FileNotFoundError):
        from_file(made, path="nothing.safetensors")
    saved()
    message = f"{FILE}: the file has 3 classes and the model 1000; pass num_classes=3 to load the last layer, or "
    assert error_of(WeightsError, from_file, made) == f"{message}num_classes=1000 for a new one"
    with pytest.raises(RuntimeError, match=r"size mismatch for classifier\.conv\.weight"):
        made("mafc_v3_small", num_classes=4, checkpoint_path=FILE)


def test_a_checkpoint_with_a_moving_average():
    """`maam.timm.create_model` takes it, as timm does; `key` takes the other set."""
    make = partial(maam.timm.create_model, "mobilenetv3_small_050")
    own, average = (make(num_classes=3) for _ in range(2))
    content = {f"model.{name}": tensor for name, tensor in own.state_dict().items()}
    torch.save({"state_dict": content, "state_dict_ema": average.state_dict()}, "both.pth")
    with pytest.warns(SeveralSetsWarning, match="'state_dict_ema' is taken"):
        assert different(make(num_classes=3, checkpoint_path="both.pth"), average) == []
    take = partial(make, checkpoint_path="both.pth", key="state_dict")
    assert different(take(num_classes=3), own) == []
    found = take(num_classes=4)
    assert different(found, own) == ["classifier.weight", "classifier.bias"]
    assert found.classifier.weight.shape[0] == found.classifier.bias.shape[0] == 4
    message = error_of(WeightsError, take)
    assert message.startswith("both.pth: does not fit the model: ")
    assert "size mismatch for classifier" in message
    assert "prefix: this has no effect without checkpoint_path" in error_of(WeightsError, make, prefix="model")


def test_broken_checkpoints():
    make = partial(maam.timm.create_model, "resnet10t", num_classes=2)
    torch.save({**make().state_dict(), "fc.bias": torch.tensor([0, float("nan")])}, "nan.pth")
    np.savez("arrays.npz", weight=np.zeros(1))
    for file, message in (
        ("nan.pth", "nan.pth: NaN or infinity in fc.bias"),
        ("arrays.npz", "arrays.npz: cannot be loaded into ResNet by timm"),
        ("none.pth", "none.pth: no such file"),
        (5, "expected the path of a weights file"),
    ):
        assert message in error_of(WeightsError, make, checkpoint_path=file)


def saved_network(name="resnet10t", attention="eca", **options):
    """Write a network of timm with random weights as a folder and as a checkpoint, and return it."""
    network = maam.timm.create_model(name, attention=attention, num_classes=4, **options)
    for p in network.parameters():
        nn.init.uniform_(p, -0.1, 0.1)
    timm.models.save_for_hf(network, "folder")
    torch.save(network.state_dict(), "model.pth")
    return network.eval()


@pytest.mark.skipif(not hasattr(timm.models._hub, "load_state_dict_from_path"), reason="timm reads no folders")
class TestFolders:
    """Networks written by `timm.models.save_for_hf` are built again with their weights."""

    @pytest.fixture(autouse=True)
    def hub(self):
        pytest.importorskip("huggingface_hub")

    again = staticmethod(partial(maam.timm.create_model, FOLDER, pretrained=True))

    def test_a_model_of_maam(self, made, images):
        """`config.json` contains the architecture and the options."""
        model, x = made("mafc_v3_small", num_classes=3).eval(), images()
        timm.models.save_for_hf(model, "folder")
        assert json.loads(Path("folder/config.json").read_text())["architecture"] == "mafc_v3_small"
        assert torch.equal(timm.create_model(FOLDER, pretrained=True).eval()(x), model(x))

    @pytest.mark.parametrize(
        ("name", "attention", "options"),
        [
            ("seresnet18", "se", {}),  # the new layers have the names of those that they replace, and other shapes
            ("mobilenetv3_small_050", "simam", {}),  # no arrays
            ("resnet10t", "eca", {"where": "layer*.*.bn2"}),
            ("resnet10t", "mafc", {"identity_init": True}),
            slow("ecaresnet26t", "eca", {}),  # the same names and shapes
            slow("regnety_002", "se", {}),
            slow("regnety_002", "simam", {}),
            slow("seresnet18", "se", {"identity_init": True}),
            slow("mobilenetv3_small_050", "eca", {"every_block": True}),
            slow("convnext_atto", "eca", {}),
            slow("densenet121", "eca", {}),
        ],
    )
    def test_a_network_with_attention(self, name, attention, options, images):
        network = saved_network(name, attention, **options)
        options = {"attention": attention, **options}
        assert different(network, self.again(**options)) == []
        own = maam.timm.create_model(name, num_classes=4, checkpoint_path="model.pth", **options)
        assert different(network, own) == []
        last, other = network.pretrained_cfg["classifier"], self.again(num_classes=7, **options)
        assert different(network, other) == [f"{last}.weight", f"{last}.bias"]
        assert other.num_classes == len(other.get_classifier().bias) == 7
        features, x = self.again(features_only=True, **options).eval(), images(64)
        assert torch.equal(features(x)[-1], network.forward_features(x))

    def test_the_plain_network(self, images):
        plain, x = timm.create_model("resnet10t", num_classes=4).eval(), images()
        timm.models.save_for_hf(plain, "folder")
        assert torch.equal(self.again(attention="mafc", identity_init=True).eval()(x), plain(x))
        found = self.again(attention="mafc", identity_init=True, num_classes=7).state_dict()
        assert all(torch.equal(found[name], t) for name, t in plain.state_dict().items() if not name.startswith("fc."))

    @pytest.mark.parametrize("options", [{}, *(slow({"feature_cls": name}) for name in ("dict", "hook", "getter"))])
    def test_the_last_map_of_a_densenet(self, options, images):
        """The layer after the last batch norm applies to the last map, and only if that map is returned."""
        network = saved_network("densenet121", "eca")
        make = partial(self.again, attention="eca", features_only=True, **options)
        features, x = make().eval(), images()
        assert sum(isinstance(module, Layer) for module in features.modules()) == 4
        maps = features(x)
        maps = list(maps.values()) if isinstance(maps, dict) else maps
        assert torch.equal(maps[-1], network.forward_features(x))
        assert sum(isinstance(module, Layer) for module in make(out_indices=(0, 2)).modules()) == 1

    @pytest.mark.parametrize(("name", "attention"), [("resnet10t", "eca"), ("mobilenetv3_small_050", "simam")])
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({}, "the network without attention: .*; if the network was saved with attention, pass attention=NAME"),
            ({"attention": "se"}, "the network with these attention layers: .*; choose the attention of the saved "),
        ],
    )
    @pytest.mark.parametrize("more", [{}, {"num_classes": 7}, slow({"features_only": True})])
    def test_another_attention_is_refused(self, name, attention, options, message, more):
        """Also with a new last layer and with `features_only`, for which timm does not compare the names."""
        saved_network(name, attention)
        with pytest.raises(WeightsError, match=f"^{FOLDER}: the pretrained weights do not fit {message}"):
            self.again(**options, **more)

    def test_layers_of_other_names_or_shapes_are_refused(self):
        saved_network("resnet10t", "mafc")
        for attention in ("cbam", partial(maam.torch.MAFC, rd_ratio=1 / 4)):
            message = error_of(WeightsError, self.again, attention=attention)
            assert "do not fit the network with these attention layers: " in message
            assert "; choose the attention of the saved network" in message

    def test_gray_images(self):
        network = saved_network(in_chans=1)
        assert different(network, self.again(attention="eca")) == []
        first = self.again(attention="eca", in_chans=3).state_dict()["conv1.0.weight"]
        assert torch.allclose(first.sum(1, keepdim=True), network.state_dict()["conv1.0.weight"], atol=1e-6)
