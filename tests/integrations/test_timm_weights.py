"""Weights files of maam and checkpoints of PyTorch, loaded with the functions of timm."""

import json
from functools import partial
from pathlib import Path
from re import escape

import numpy as np
import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from torch import nn  # noqa: E402

import maam  # noqa: E402
import maam.timm  # noqa: E402
from maam.errors import WeightsError  # noqa: E402
from maam.torch import build, load, load_weights, save_weights  # noqa: E402
from maam.weights.sets import SeveralSetsWarning  # noqa: E402

FILE = "model.safetensors"


def saved(name="mafc_v3_small", **options):
    """Write a weights file of a network with three classes, and return the network."""
    small = {"width_multiplier": 0.25, "cifar": True, "num_classes": 3} if name.startswith("mafc") else {}
    model = build(maam.preset(name, **{**small, **options}), seed=1).eval()
    save_weights(model, FILE)
    return model


def from_file(made, name="mafc_v3_small", path=FILE, **options):
    return made(name, pretrained=True, pretrained_cfg_overlay={"file": path}, **options).eval()


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


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels(channels, made, images):
    own = saved()
    nn.init.uniform_(own.backbone.data_bn.weight)  # new ones are all 1
    save_weights(own, FILE)
    model = from_file(made, num_classes=3, in_chans=channels)
    first = "backbone.init_conv.conv.weight"
    kernel = model.state_dict()[first]
    assert kernel.shape[1] == channels
    if channels == 1:
        assert torch.allclose(kernel, own.state_dict()[first].sum(1, keepdim=True))
    mean = own.state_dict()["backbone.data_bn.weight"].mean()
    assert torch.allclose(model.state_dict()["backbone.data_bn.weight"], mean.expand(channels))
    assert model(images(channels=channels)).isfinite().all()


def test_gray_images_for_a_maam_classifier(made, images):
    save_weights(build("maam_cifar10", seed=1), FILE)
    model = from_file(made, "maam_cifar10", in_chans=1)
    whole = load(FILE).eval()
    x = images(channels=1)
    assert torch.allclose(model(x), whole(x.expand(-1, 3, -1, -1)), atol=1e-5)


def test_features_only(made, images):
    saved()
    x = images()
    maps = from_file(made, features_only=True)(x)
    _, expected = from_file(made, num_classes=3).forward_intermediates(x)
    assert all(torch.equal(a, b) for a, b in zip(maps, expected, strict=True))


def test_a_model_of_timm_is_a_model_of_maam(made, images):
    model, x = made("mafc_v3_small", num_classes=3).eval(), images()
    save_weights(model, FILE)
    assert torch.equal(load(FILE).eval()(x), model(x))
    other = made("mafc_v3_small", num_classes=3).eval()
    load_weights(other, FILE)
    assert torch.equal(other(x), model(x))


def test_a_folder_in_the_form_of_the_hub(made, images):
    """`local-dir:` reads the files of `save_for_hf`; config.json contains the architecture and the options."""
    model, x = made("mafc_v3_small", num_classes=3).eval(), images()
    if not hasattr(model, "_model_args"):
        pytest.skip("this timm does not store the arguments of a model")
    timm.models.save_for_hf(model, "folder")
    config = json.loads(Path("folder/config.json").read_text())
    assert config["architecture"] == "mafc_v3_small"
    again = timm.create_model("local-dir:folder", pretrained=True).eval()
    assert torch.equal(again(x), model(x))


@pytest.mark.parametrize(
    ("name", "saved_as", "options", "message"),
    [
        ("maam_digits", {"act_layer": "silu"}, {}, "agents.0.act1.function is 'silu' in the file and 'relu' in the m"),
        ("maam_digits", {"fusion": "mean"}, {}, r"agents.merge is 'weighted' in the file and 'softmax' in the model"),
        ("mafc_v3_small", {"attention": "se"}, {}, "is a scale in the file and a sequential in the model"),
        ("mafc_v3_small", {}, {"cifar": False}, "stride is 1 in the file and 2 in the model"),
    ],
)
def test_a_file_that_computes_something_else(name, saved_as, options, message, made):
    saved(name, **saved_as)
    with pytest.raises(WeightsError, match=f"{FILE}.*{escape(message)}"):
        from_file(made, name, num_classes=3, **options)


def test_files_that_do_not_fit(made):
    with pytest.raises(FileNotFoundError):
        from_file(made, path="nothing.safetensors")
    saved()
    advice = "pass num_classes=3 to load the last layer, or num_classes=1000 for a new one"
    with pytest.raises(WeightsError, match=f"^{FILE}: the file has 3 classes and the model 1000; {advice}$"):
        from_file(made)
    with pytest.raises(RuntimeError, match=r"size mismatch for classifier\.conv\.weight"):
        made("mafc_v3_small", num_classes=4, checkpoint_path=FILE)


def test_folders_and_checkpoints_of_networks_with_attention(images):
    """As `timm.models.save_for_hf` writes them, also of the plain network; another number of classes has a new head."""
    pytest.importorskip("huggingface_hub")
    options = {"attention": "mafc", "identity_init": True}
    network, x = maam.timm.create_model("resnet10t", num_classes=4, **options).eval(), images()
    for gamma in (p for name, p in network.named_parameters() if name.endswith("gamma")):
        nn.init.constant_(gamma, 0.5)
    for name, origin in (("own", network), ("plain", timm.create_model("resnet10t", num_classes=4).eval())):
        timm.models.save_for_hf(origin, name)
        again = maam.timm.create_model(f"local-dir:{name}", pretrained=True, **options).eval()
        assert torch.equal(again(x), origin(x))
        other = maam.timm.create_model(f"local-dir:{name}", pretrained=True, num_classes=7, **options)
        found = other.state_dict()
        assert all(torch.equal(found[key], t) for key, t in origin.state_dict().items() if not key.startswith("fc."))
        assert other.num_classes == len(found["fc.bias"]) == 7
    torch.save(network.state_dict(), "model.pth")
    again = maam.timm.create_model("resnet10t", checkpoint_path="model.pth", num_classes=4, **options).eval()
    assert torch.equal(again(x), network(x))
    for other in ("cbam", partial(maam.torch.MAFC, rd_ratio=1 / 4)):
        with pytest.raises(WeightsError, match=r"do not fit the network with these attention layers: .*; choose the"):
            maam.timm.create_model("local-dir:own", attention=other, pretrained=True)


def test_a_checkpoint_with_a_moving_average():
    """`maam.timm.create_model` takes it, as timm does; `key` takes the other set."""
    make = partial(maam.timm.create_model, "mobilenetv3_small_050")
    own, average = (make(num_classes=3).state_dict() for _ in range(2))
    torch.save({"state_dict": {f"model.{n}": t for n, t in own.items()}, "state_dict_ema": average}, "both.pth")
    with pytest.warns(SeveralSetsWarning, match="'state_dict_ema' is taken"):
        found = make(num_classes=3, checkpoint_path="both.pth").state_dict()
    assert torch.equal(found["classifier.weight"], average["classifier.weight"])
    found = make(num_classes=3, checkpoint_path="both.pth", key="state_dict").state_dict()
    assert torch.equal(found["classifier.weight"], own["classifier.weight"])
    found = make(num_classes=4, checkpoint_path="both.pth", key="state_dict").state_dict()
    assert found.pop("classifier.weight").shape[0] == found.pop("classifier.bias").shape[0] == 4  # a new last layer
    assert all(torch.equal(tensor, own[name]) for name, tensor in found.items())
    with pytest.raises(WeightsError, match=r"both.pth: does not fit the model: .*size mismatch for classifier"):
        make(checkpoint_path="both.pth", key="state_dict")
    with pytest.raises(WeightsError, match="prefix: this has no effect without checkpoint_path"):
        make(prefix="model")


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
        with pytest.raises(WeightsError, match=message):
            make(checkpoint_path=file)
