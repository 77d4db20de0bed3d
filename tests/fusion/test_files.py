"""Fusing files, and holding the result to its source on images."""

import ml_dtypes
import numpy as np
import pytest

from maam import DeploymentError, WeightsError, spec
from maam.backend.registry import make_runners
from maam.deploy.fusing import agreements, fuse_file
from maam.reference import ReferenceModel
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
    with pytest.raises(DeploymentError, match=r"out\.safetensors: the file exists; use another name, or overwrite=True"):
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
    with pytest.raises(WeightsError, match=r"several dtypes \(float32, float64\); save it in one"):
        fuse_file(tmp_path / "in.safetensors", tmp_path / "out.safetensors")


def test_agreements_count_what_differs(scrambled, images):
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
