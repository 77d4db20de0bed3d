"""The fused form in PyTorch and in both modes of MindSpore, against the referee of the unfused one."""

import numpy as np
import pytest

from maam import fuse, spec
from maam.backend.registry import make_runners
from maam.deploy.fusing import agreements
from maam.reference import ReferenceModel
from maam.tolerance import LAYER, LOGITS, difference

MODES = {"torch": "torch", "graph": "mindspore graph", "pynative": "mindspore pynative"}


@pytest.fixture(params=MODES)
def hold(request, scrambled, images, tmp_path, monkeypatch):
    """Hold a fused spec to the referee in one mode."""
    monkeypatch.chdir(tmp_path)
    framework = MODES[request.param].split()[0]
    pytest.importorskip(framework)

    def compare(node, shape, bound):
        arrays = scrambled(node)
        x = images(shape)
        runners, _ = make_runners(*fuse(node, arrays), [framework], compiled=False)
        runner = next(runner for runner in runners if runner.name == MODES[request.param])
        found = difference(runner.forward(x), ReferenceModel(node, arrays)(x), bound)
        assert found.used <= 1

    compare.mode = request.param
    return compare


def test_every_preset(network, hold):
    if hold.mode == "graph" and network.name.startswith(("mafc", "mobilenet")):
        pytest.skip("compiles for long: test_the_largest_graphs")
    hold(network, network.input_shape, LOGITS)


@pytest.mark.slow
@pytest.mark.parametrize("name", spec.list_presets("m[ao][fb]*"))
def test_the_largest_graphs(name, scrambled, images):
    pytest.importorskip("mindspore")
    node = spec.preset(name, cifar=True, width_multiplier=0.1)
    arrays = scrambled(node)
    x = images(node.input_shape)
    runners, _ = make_runners(*fuse(node, arrays), ["mindspore"])
    assert difference(runners[0].forward(x), ReferenceModel(node, arrays)(x), LOGITS).used <= 1


def test_every_activation(layer, hold):
    hold(layer, (4, 8, 8), LAYER)


@pytest.mark.parametrize("framework", ["torch", "mindspore"])
@pytest.mark.parametrize("name", ["maam_cifar10_2m3", "t_cnn", "without_fusion", "without_reduce"])
def test_the_largest_logit_of_real_images(name, framework, scrambled):
    """On all images of the sample, in every mode."""
    pytest.importorskip(framework)
    with np.load("tests/data/cifar10_sample.npz") as content:
        x = content["images"].astype(np.float32) / 255
    node = spec.preset(name, channels=32)
    arrays = scrambled(node)
    plain = make_runners(node, arrays, [framework], compiled=False)[0]
    fused = make_runners(*fuse(node, arrays), [framework], compiled=False)[0]
    found = list(agreements(list(zip(plain, fused, strict=True)), x))
    assert len(found) == {"torch": 1, "mindspore": 2}[framework]
    assert all(one.images == len(x) and one.different == 0 for one in found)
