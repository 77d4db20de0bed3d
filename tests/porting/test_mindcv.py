"""torchvision's networks and MindCV's: the weights of one put into the other."""

import pytest

import maam

models = pytest.importorskip("torchvision.models")
mindcv = pytest.importorskip("mindcv.models")
PAIRS = [
    ("resnet18", "resnet18"),
    ("mobilenet_v2", "mobilenet_v2_100"),
    pytest.param("resnet50", "resnet50", marks=pytest.mark.slow),
]


def make(torch_name, mindspore_name):
    return getattr(models, torch_name)(num_classes=10), getattr(mindcv, mindspore_name)(num_classes=10)


@pytest.mark.parametrize(("torch_name", "mindspore_name"), PAIRS)
def test_a_pair_agrees(torch_name, mindspore_name):
    report = maam.port(*make(torch_name, mindspore_name), input_shape=(3, 64, 64), steps=1)
    assert report.passed(), report.to_markdown()


def test_a_fault_in_resnet_is_named():
    module, cell = make("resnet18", "resnet18")
    module.layer3[1].bn1.eps = 1e-3
    report = maam.port(module, cell, input_shape=(3, 64, 64), steps=1)
    assert report.first_difference == "layer3.1.bn1"
