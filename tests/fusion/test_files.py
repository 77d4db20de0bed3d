"""Fused files, and fused models in every backend, against the originals."""

import ml_dtypes
import numpy as np
import pytest

from maam import DeploymentError, WeightsError, fuse, spec
from maam.backend.registry import make_runners
from maam.deploy.fusing import agreements, fuse_file
from maam.reference import ReferenceModel
from maam.tolerance import LAYER, LOGITS, difference
from maam.weights import read_weights, write_weights

NODE = spec.preset("maam_digits", channels=8, hidden_channels=4, hidden_features=16)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_dtypes_are_kept(dtype, scrambled, images, tmp_path):
    arrays = scrambled(NODE, dtype=dtype)
    write_weights(tmp_path / "in.safetensors", NODE, arrays)
    written = fuse_file(tmp_path / "in.safetensors", tmp_path / "out.safetensors")
    node, found = read_weights(tmp_path / "out.safetensors")
    assert node == written
    assert {array.dtype for array in found.values()} == {np.dtype(dtype)}
    x = images(NODE.input_shape)
    error = {1: 1e-14, 2: 1e-6, 4: 1e-2, 8: 1e-1}[
        8 // np.dtype(dtype).itemsize * (2 if dtype is ml_dtypes.bfloat16 else 1)
    ]
    np.testing.assert_allclose(ReferenceModel(node, found)(x), ReferenceModel(NODE, arrays)(x), rtol=error, atol=error)


def test_refusals(scrambled, tmp_path):
    source, target = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    with pytest.raises(WeightsError, match="no such file"):
        fuse_file(source, target)
    write_weights(source, NODE, scrambled(NODE))
    with pytest.raises(DeploymentError, match=r"the folder .*none does not exist; create it first"):
        fuse_file(source, tmp_path / "none" / "out.safetensors")
    with pytest.raises(DeploymentError, match="expected a file, got a folder"):
        fuse_file(source, tmp_path)
    fuse_file(source, target)
    before = target.read_bytes()
    with pytest.raises(
        DeploymentError, match=r"out\.safetensors: the file exists; use another name, or overwrite=True"
    ):
        fuse_file(source, target)
    with pytest.raises(DeploymentError, match="nothing to fuse"):
        fuse_file(target, target, overwrite=True)
    assert target.read_bytes() == before
    fuse_file(source, target, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.safetensors", "out.safetensors"]


def test_arrays_of_several_dtypes(scrambled, tmp_path):
    arrays = scrambled(NODE)
    arrays["agents.alpha"] = arrays["agents.alpha"].astype(np.float64)
    write_weights(tmp_path / "in.safetensors", NODE, arrays)
    with pytest.raises(
        WeightsError, match="expected arrays of one dtype, got float32, float64; convert the file with"
    ):
        fuse_file(tmp_path / "in.safetensors", tmp_path / "out.safetensors")


def test_agreements_count_different_predictions(scrambled, images):
    pytest.importorskip("torch")
    arrays = scrambled(NODE)
    other = {**arrays, "classifier.fc2.bias": arrays["classifier.fc2.bias"] + np.eye(10, dtype=np.float32)[3] * 100}
    (plain,), (same,), (moved,) = (make_runners(NODE, a, ["torch"], compiled=False)[0] for a in (arrays, arrays, other))
    x = images(NODE.input_shape, 7)
    ok, bad = agreements([(plain, same), (plain, moved)], x, batch_size=3)
    assert (ok.runner, ok.images, ok.different, ok.absolute) == ("torch", 7, 0, 0)
    assert bad.different == int((plain.forward(x).argmax(1) != 3).sum()) > 0
    assert bad.absolute == pytest.approx(100, rel=1e-4)
    with pytest.raises(DeploymentError, match="at least one"):
        next(agreements([(plain, same)], x[:0]))


MODES = {"torch": "torch", "graph": "mindspore graph", "pynative": "mindspore pynative"}


@pytest.fixture
def hold(request, scrambled, images, tmp_path, monkeypatch):
    """Compare a fused model in one mode with the reference of the original."""
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


@pytest.mark.parametrize("hold", MODES, indirect=True)
def test_every_preset(network, hold):
    if hold.mode == "graph" and network.name.startswith(("mafc", "mobilenet")):
        pytest.skip("the compilation is slow: see test_the_largest_graphs")
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


@pytest.mark.parametrize("hold", ["torch", "pynative", pytest.param("graph", marks=pytest.mark.slow)], indirect=True)
def test_every_activation(layer, hold):
    hold(layer, (4, 8, 8), LAYER)


@pytest.mark.parametrize("hold", ["graph"], indirect=True)
@pytest.mark.parametrize("layer", [("hard_swish", "softmax"), ("gelu", "dynamic")], ids="-".join, indirect=True)
def test_some_activations_in_graph_mode(layer, hold):
    hold(layer, (4, 8, 8), LAYER)


@pytest.mark.parametrize("framework", ["torch", "mindspore"])
@pytest.mark.parametrize("name", ["maam_cifar10_2m3", "t_cnn", "without_fusion", "without_reduce"])
def test_the_largest_logit_of_real_images(name, framework, scrambled):
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
