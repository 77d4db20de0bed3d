"""torchvision's networks and MindCV's: the weights of one put into the other."""

import pytest
from mindspore import nn

import maam

models = pytest.importorskip("torchvision.models")
mindcv = pytest.importorskip("mindcv.models")
SHAPE = (3, 64, 64)


def make(torch_name, mindspore_name, *, mend=True):
    """MindCV's ResNets pool with pad_mode="same", which at even sizes is not torchvision's padding: mended here."""
    cell = getattr(mindcv, mindspore_name)(num_classes=10)
    if mend and hasattr(cell, "max_pool"):
        cell.max_pool = nn.MaxPool2d(3, 2, pad_mode="pad", padding=1)
    return getattr(models, torch_name)(num_classes=10), cell


@pytest.mark.parametrize(
    ("torch_name", "mindspore_name"),
    [
        ("resnet18", "resnet18"),
        ("mobilenet_v2", "mobilenet_v2_100"),
        pytest.param("resnet50", "resnet50", marks=pytest.mark.slow),
    ],
)
def test_a_pair_agrees(torch_name, mindspore_name):
    report = maam.port(*make(torch_name, mindspore_name), input_shape=SHAPE, steps=1)
    assert report.passed, report.to_markdown()


@pytest.mark.parametrize(
    "direction", ["torch-to-mindspore", pytest.param("mindspore-to-torch", marks=pytest.mark.slow)]
)
def test_the_pooling_of_mindcv_is_found(direction):
    report = maam.port(*make("resnet18", "resnet18", mend=False), input_shape=SHAPE, steps=1, direction=direction)
    assert report.first_difference == "maxpool (MindSpore: max_pool)", report.to_markdown()


@pytest.mark.parametrize("fault", ["eps", "momentum", "stride"])
def test_a_fault_in_resnet_is_named(fault):
    module, cell = make("resnet18", "resnet18")
    expected = {"eps": "layer3.1.bn1", "momentum": "layer3.1.bn1.running_mean", "stride": "layer3.0.conv1"}[fault]
    if fault == "stride":
        cell.layer3[0].conv1 = nn.Conv2d(128, 256, 3, stride=1, pad_mode="pad", padding=1)
    else:
        setattr(module.layer3[1].bn1, fault, 1e-3)
    report = maam.port(module, cell, input_shape=SHAPE, steps=1)
    assert report.first_difference.startswith(expected), report.to_markdown()
