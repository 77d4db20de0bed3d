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
from tests.errors import error_of
from tests.fusion.helpers import LAYERS, PRESETS, images, scrambled, small

NODE = spec.preset("maam_digits", channels=8, hidden_channels=4, hidden_features=16)


@pytest.mark.parametrize(
    ("dtype", "error"), [(np.float64, 1e-14), (np.float32, 1e-6), (np.float16, 1e-2), (ml_dtypes.bfloat16, 1e-1)]
)
def test_dtypes_are_kept(dtype, error, tmp_path):
    arrays = scrambled(NODE, dtype=dtype)
    write_weights(tmp_path / "in.safetensors", NODE, arrays)
    written = fuse_file(tmp_path / "in.safetensors", tmp_path / "out.safetensors")
    node, found = read_weights(tmp_path / "out.safetensors")
    assert node == written
    assert {array.dtype for array in found.values()} == {np.dtype(dtype)}
    x = images(NODE.input_shape)
    np.testing.assert_allclose(ReferenceModel(node, found)(x), ReferenceModel(NODE, arrays)(x), rtol=error, atol=error)


def test_refusals(tmp_path):
    source, target = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
    assert error_of(WeightsError, fuse_file, source, target).endswith("no such file")
    arrays = scrambled(NODE)
    write_weights(source, NODE, arrays | {"agents.alpha": arrays["agents.alpha"].astype(np.float64)})
    message = error_of(WeightsError, fuse_file, source, target)
    assert "expected arrays of one dtype, got float32, float64; convert the file with" in message
    write_weights(source, NODE, arrays)
    fuse_file(source, target)
    before = target.read_bytes()
    for src, dst, overwrite, message in (
        (source, tmp_path / "none" / "out.safetensors", False, "none does not exist; create it first"),
        (source, tmp_path, False, "expected a file, got a folder"),
        (source, target, False, "out.safetensors: the file exists; use another name, or overwrite=True"),
        (target, target, True, "nothing to fuse"),
    ):
        assert message in error_of(DeploymentError, fuse_file, src, dst, overwrite=overwrite)
    assert target.read_bytes() == before
    fuse_file(source, target, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.safetensors", "out.safetensors"]


def test_agreements_count_different_predictions():
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


MODES = ("torch", "mindspore graph", "mindspore pynative")
COMPILED = ("hard_swish-softmax", "gelu-dynamic")
"""The layers that are not too slow for every test run in graph mode."""
CASES = [
    *((mode, small(name), LOGITS, name.startswith(("mafc", "mobilenet"))) for mode in MODES for name in PRESETS),
    *((mode, layer, LAYER, name not in COMPILED) for mode in MODES for name, layer in LAYERS.items()),
]


@pytest.mark.parametrize(
    ("mode", "node", "bound"),
    [pytest.param(*case, marks=pytest.mark.slow if slow and case[0] != "torch" else ()) for *case, slow in CASES],
)
def test_every_preset_and_activation_in_every_mode(mode, node, bound, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    framework = mode.split()[0]
    pytest.importorskip(framework)
    arrays, x = scrambled(node), images(getattr(node, "input_shape", (4, 8, 8)))
    runners, _ = make_runners(*fuse(node, arrays), [framework], compiled=False)
    runner = next(runner for runner in runners if runner.name == mode)
    assert difference(runner.forward(x), ReferenceModel(node, arrays)(x), bound).used <= 1


@pytest.mark.slow_in("maam_cifar10_2m3", "without", "mindspore")
@pytest.mark.parametrize("name", ["maam_cifar10_2m3", "t_cnn", "without_fusion", "without_reduce"])
@pytest.mark.parametrize("framework", ["torch", "mindspore"])
def test_the_largest_logit_of_real_images(name, framework):
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
