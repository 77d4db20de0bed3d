"""Networks of timm with attention, written by `save_for_hf` or `torch.save` and built again with their weights."""

from functools import partial

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
pytest.importorskip("huggingface_hub")

from torch import nn  # noqa: E402

import maam.timm  # noqa: E402
from maam.errors import WeightsError  # noqa: E402
from maam.torch.layers import Layer  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("seeded"),
    pytest.mark.skipif(not hasattr(timm.models._hub, "load_state_dict_from_path"), reason="timm reads no folders"),
]
FOLDER = "local-dir:folder"
again = partial(maam.timm.create_model, FOLDER, pretrained=True)
NETWORKS = [  # network, attention, arguments
    ("seresnet18", "se", {}),  # the new layers have the names of those that they replace, and other shapes
    ("mobilenetv3_small_050", "simam", {}),  # no arrays
    ("resnet10t", "eca", {"where": "layer*.*.bn2"}),
]
MORE_NETWORKS = [
    ("ecaresnet26t", "eca", {}),  # the same names and shapes
    ("regnety_002", "se", {}),
    ("regnety_002", "simam", {}),
    ("seresnet18", "se", {"identity_init": True}),
    ("mobilenetv3_small_050", "eca", {"every_block": True}),
    ("convnext_atto", "eca", {}),
    ("densenet121", "eca", {}),
]
slow = pytest.mark.slow


def saved(name="resnet10t", attention="eca", **options):
    """Write a network with random weights as a folder and as a checkpoint, and return it."""
    network = maam.timm.create_model(name, attention=attention, num_classes=4, **options)
    for p in network.parameters():
        nn.init.uniform_(p, -0.1, 0.1)
    timm.models.save_for_hf(network, "folder")
    torch.save(network.state_dict(), "model.pth")
    return network.eval()


def different(network, other):
    """Return the names of the arrays that are not equal."""
    own, found = network.state_dict(), other.state_dict()
    assert list(own) == list(found)
    return [name for name in own if not torch.equal(own[name], found[name])]


@pytest.mark.parametrize(
    ("name", "attention", "options"), [*NETWORKS, *(pytest.param(*case, marks=slow) for case in MORE_NETWORKS)]
)
def test_a_folder_and_a_checkpoint(name, attention, options, images):
    network = saved(name, attention, **options)
    options = {"attention": attention, **options}
    assert different(network, again(**options)) == []
    own = maam.timm.create_model(name, num_classes=4, checkpoint_path="model.pth", **options)
    assert different(network, own) == []
    last = network.pretrained_cfg["classifier"]
    assert different(network, again(num_classes=7, **options)) == [f"{last}.weight", f"{last}.bias"]
    features, x = again(features_only=True, **options).eval(), images(64)
    assert torch.equal(features(x)[-1], network.forward_features(x))


@pytest.mark.parametrize(
    "options", [{}, *(pytest.param({"feature_cls": name}, marks=slow) for name in ("dict", "hook", "getter"))]
)
def test_the_last_map_of_a_densenet(options, images):
    """The layer after the last batch norm applies to the last map, and only if that map is returned."""
    network = saved("densenet121", "eca")
    make = partial(again, attention="eca", features_only=True, **options)
    features = make().eval()
    assert sum(isinstance(module, Layer) for module in features.modules()) == 4
    x = images()
    maps = features(x)
    maps = list(maps.values()) if isinstance(maps, dict) else maps
    assert torch.equal(maps[-1], network.forward_features(x))
    assert sum(isinstance(module, Layer) for module in make(out_indices=(0, 2)).modules()) == 1


@pytest.mark.parametrize(("name", "attention"), [("resnet10t", "eca"), ("mobilenetv3_small_050", "simam")])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "the network without attention: .*; if the network was saved with attention, pass attention=NAME"),
        ({"attention": "se"}, "the network with these attention layers: .*; choose the attention of the saved netwo"),
    ],
)
@pytest.mark.parametrize("more", [{}, {"num_classes": 7}, pytest.param({"features_only": True}, marks=slow)])
def test_another_attention_is_refused(name, attention, options, message, more):
    """Also with a new last layer and with `features_only`, for which timm does not compare the names."""
    saved(name, attention)
    with pytest.raises(WeightsError, match=f"^{FOLDER}: the pretrained weights do not fit {message}"):
        again(**options, **more)


def test_gray_images():
    network = saved(in_chans=1)
    assert different(network, again(attention="eca")) == []
    first = again(attention="eca", in_chans=3).state_dict()["conv1.0.weight"]
    assert torch.allclose(first.sum(1, keepdim=True), network.state_dict()["conv1.0.weight"], atol=1e-6)
