"""Models: their stages, models cut after a stage, and their input shape."""

import numpy as np
import pytest

from maam import spec
from maam.backend.registry import make_runners
from maam.errors import SpecError
from maam.reference import ReferenceModel
from maam.spec import preset
from tests.errors import error_of

CNN = {"conv1": (32, 8, 8), "act1": (32, 8, 8), "pool1": (32, 4, 4), "conv2": (64, 4, 4), "act2": (64, 4, 4)}
CNN |= {"pool2": (64, 2, 2), "flatten": (256,), "fc1": (128,), "act3": (128,), "fc2": (10,)}
NET = {"stem": (24, 31, 31), "stage1": (60, 15, 15), "stage2": (240, 7, 7), "stage3": (300, 3, 3), "classifier": (10,)}
IMAGENET = {"stem": (32, 112, 112), "stage1": (64, 56, 56), "stage2": (128, 28, 28), "stage3": (256, 14, 14)}
IMAGENET |= {"stage4": (512, 7, 7), "classifier": (1000,)}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (preset("cnn", image_size=8), CNN),
        (preset("maam_cifar10"), {"agents": (128, 16, 16), "reduce": (128, 16, 16), "classifier": (10,)}),
        (preset("maam_cifar10_2m3"), {"agents": (128, 8, 8), "reduce": (128, 8, 8), "classifier": (10,)}),
        (preset("maam_digits"), {"agents": (32, 4, 4), "reduce": (32, 4, 4), "classifier": (10,)}),
        (preset("maam_net_m"), NET),
        (preset("maam_imagenet"), IMAGENET),
    ],
)
def test_stages_are_the_direct_children_in_order(model, expected):
    assert list(model.stages().items()) == list(expected.items())


def test_an_empty_model():
    empty = spec.Model(name="", input_shape=(2, 3, 4), children={})
    assert (empty.stages(), empty.num_classes, empty.macs(empty.input_shape)) == ({}, 2, 0)


def test_until_cuts_and_keeps_names():
    model = preset("maam_cifar10")
    trunk = model.until("reduce")
    assert list(trunk.stages()) == ["agents", "reduce"]
    assert trunk.num_classes == 128
    assert [p for p in model.parameters() if p.name.startswith(("agents", "reduce"))] == list(trunk.parameters())
    assert (trunk.name, trunk.input_shape) == (model.name, model.input_shape)
    assert model.until("classifier") == model
    small = preset("mafc_v3_small")
    assert small.until("backbone.final_conv2") == small.until("backbone")
    assert spec.input_rule(trunk).accepts((1, 3, 48, 40))  # without its classifier it takes any size


@pytest.mark.parametrize(
    ("path", "shape", "last"),
    [
        ("backbone", (1280, 1, 1), "backbone.final_pool"),
        ("backbone.stage3", (32, 4, 4), "backbone.stage3.unit3"),
        ("backbone.stage3.unit2", (32, 4, 4), "backbone.stage3.unit2.cbamm"),
        ("backbone.stage3.unit1.conv1", (144, 8, 8), "backbone.stage3.unit1.conv1.act"),
        ("backbone.data_bn", (3, 32, 32), "backbone.data_bn"),
    ],
)
def test_until_a_path(path, shape, last):
    model = preset("mafc_v2", image_size=32)
    trunk = model.until(path)
    assert trunk.output_shape((3, 32, 32)) == shape
    assert trunk.at(path) == model.at(path)
    kept = [name for name, _ in trunk.walk()]
    assert kept[: kept.index(last) + 1] == [name for name, _ in model.walk()][: kept.index(last) + 1]
    assert all(last.startswith(name) for name in kept[kept.index(last) + 1 :])  # only the containers around it
    assert list(trunk.parameters()) == list(model.parameters())[: len(trunk.parameters())]
    assert (trunk.name, trunk.input_shape) == (model.name, model.input_shape)


STAGES = [f"backbone.{name}" for name in ("data_bn", "init_conv", *(f"stage{i}" for i in range(1, 6)))]
UNITS = ", ".join(f"backbone.stage3.unit{i}" for i in (1, 2, 3))
CIFAR = "its stages: agents, reduce, classifier"


@pytest.mark.parametrize(
    ("name", "path", "message"),
    [
        *(("maam_cifar10", path, CIFAR) for path in ("", "conv", "agents.0", None)),
        ("mafc_v2", "stage3", f"its stages: backbone, classifier; in these: {', '.join(STAGES)}, backbone.final"),
        ("mafc_v2", "backbone.stage9", f"the stages in 'backbone': {', '.join(STAGES)}, backbone.final"),
        ("mafc_v2", "backbone.", f"the stages in 'backbone': {STAGES[0]}"),
        ("mafc_v2", "backbone.stage3.unit2.conv1", f"the stages in 'backbone.stage3': {UNITS}"),  # in a residual
        ("mafc_v2", "classifier.conv.weight", "the stages in 'classifier': classifier.conv, classifier.flatten"),
        ("mafc_v2", 3, "its stages: backbone, classifier; in these: "),
    ],
)
def test_until_an_unknown_path(name, path, message):
    assert error_of(SpecError, preset(name).until, path).startswith(f"no stage {path!r} in {name!r}; {message}")


@pytest.mark.parametrize("framework", ["torch", "mindspore"])
@pytest.mark.parametrize(("name", "path"), [("mafc_v2", "backbone.stage3"), ("mobilenet_v1", "backbone.stage2.unit1")])
def test_a_cut_model_computes_the_feature_maps_of_the_whole_one(framework, name, path):
    pytest.importorskip(framework)
    model = preset(name, width_multiplier=0.25, cifar=True)
    trunk = model.until(path)
    arrays = spec.draw(model.parameters(), 0)
    images = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    maps, reference = {}, ReferenceModel(model, arrays)
    reference.observer = lambda at, _, output: maps.update({at: output})
    reference(images)
    own = {parameter.name: arrays[parameter.name] for parameter in trunk.parameters()}
    runners, missing = make_runners(trunk, own, [framework], compiled=False)
    assert runners
    assert not missing
    for runner in runners:
        np.testing.assert_allclose(runner.forward(images), maps[path], rtol=1e-4, atol=1e-6)
