"""int8 files by both quantizers, and what is refused; nothing is left then."""

import json

import numpy as np
import pytest

from maam import DataError, DeploymentError, MissingFrameworkError, ShapeError, data, spec
from maam.deploy import FORMATS, MIN_IMAGES, open_exported, quantize
from maam.reference import ReferenceModel
from maam.weights import write_weights

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
NODE = spec.preset("maam_digits")


@pytest.fixture
def arrays():
    return spec.draw(NODE.parameters(), 3)


@pytest.fixture
def source(tmp_path, arrays):
    write_weights(tmp_path / "in.safetensors", NODE, arrays)
    return tmp_path / "in.safetensors"


@pytest.fixture(scope="module")
def images():
    pytest.importorskip("sklearn")
    return data.to_float(data.digits("train").images)[:MIN_IMAGES]


@pytest.mark.parametrize(("engine", "name"), [("openvino", "q.xml"), ("onnxruntime", "q.onnx")])
def test_both_engines(engine, name, source, arrays, images, tmp_path):
    for package, _ in (*FORMATS["onnx"].packages, *FORMATS["openvino"].packages, ("nncf", "")):
        pytest.importorskip(package)
    seen = []
    found = quantize(
        source,
        tmp_path / name,
        images,
        class_names=list("0123456789"),
        accept=lambda before, after: seen.append(np.abs(before(images) - after(images)).max()),
    )
    assert found.engine == engine
    assert found.size_after < found.size_before == source.stat().st_size
    assert found.signal_to_noise > 15
    assert sorted(tmp_path.iterdir()) == sorted([source, *found.files])
    predict, metadata = open_exported(tmp_path / name)
    expected = ReferenceModel(NODE, arrays)(images[:5])
    difference = np.abs(predict(images[:5]) - expected).max()
    assert 0 < difference < 0.2 * np.abs(expected).max()  # it is int8, and it is near
    assert len(seen) == 1
    assert seen[0] > 0
    assert metadata["maam.precision"] == "int8"
    assert json.loads(metadata["maam.class_names"])[3] == "3"
    text = b"".join(path.read_bytes() for path in found.files)
    assert b"FakeQuantize" in text or b"QuantizeLinear" in text


@pytest.mark.parametrize("name", ["float32.onnx", "model.onnx", "prepared.onnx"])
def test_any_name_is_held_to_the_float32_model(name, source, images, tmp_path):
    for package, _ in FORMATS["onnx"].packages:
        pytest.importorskip(package)
    assert quantize(source, tmp_path / name, images).signal_to_noise < 100
    assert sorted(tmp_path.iterdir()) == sorted([source, tmp_path / name])


class TestRefusals:
    @pytest.fixture
    def refused(self, source, images, tmp_path):
        for package, _ in (*FORMATS["onnx"].packages, *FORMATS["openvino"].packages, ("nncf", "")):
            pytest.importorskip(package)

        def check(error, match, given=images, name="q.onnx", **options):
            with pytest.raises(error, match=match):
                quantize(source, tmp_path / name, given, **options)
            assert list(tmp_path.iterdir()) == [source]

        return check

    def test_calibration_images(self, refused, images):
        refused(DataError, r"calibration images: expected at least 64, got 63$", images[:63])
        refused(
            DataError, r"expected a float32 array \(N, C, H, W\) as the model takes it, got uint8", images.astype("u1")
        )
        refused(DataError, "got list", [1, 2])
        refused(ShapeError, r"expected an input \(N, 1, 8, 8\), got \(64, 1, 8, 4\)", images[..., :4])
        refused(ShapeError, r"expected an input \(N, 1, 8, 8\)", images[0])
        refused(DataError, "NaN or infinity", np.where(images > 0.9, np.float32("nan"), images))

    def test_engines_and_places(self, refused):
        refused(DeploymentError, r"expected a name that ends in \.xml \(openvino\) or \.onnx", name="q.pt2")
        refused(DeploymentError, "engine: expected one of openvino, onnxruntime, got 'torch'", engine="torch")
        refused(DeploymentError, r"expected a name that ends in \.xml for format openvino", engine="openvino")
        refused(DeploymentError, "the folder .* does not exist", name="none/q.onnx")
        refused(DeploymentError, "class_names: expected 10 names", class_names=["a"])

    def test_what_the_caller_refuses(self, refused):
        def accept(before, after):
            raise DeploymentError("too bad")

        refused(DeploymentError, "^too bad$", accept=accept)

    def test_outputs_that_are_far_off(self, refused, images, monkeypatch):
        from maam.deploy import quantize

        real = quantize.BACKENDS["onnxruntime"]
        narrow = lambda s, t, x, m: real[0](s, t, x * 1e-3, m)  # noqa: E731
        monkeypatch.setitem(quantize.BACKENDS, "onnxruntime", (narrow, real[1]))
        refused(
            DeploymentError, r"int8 outputs have a signal-to-noise ratio of -?\d+ dB.*preprocessed as in training\?"
        )

    def test_what_is_not_installed(self, source, images, tmp_path, monkeypatch):
        monkeypatch.setattr("maam.errors.importlib.util.find_spec", lambda n: None if n == "nncf" else object())
        with pytest.raises(MissingFrameworkError, match=r"^nncf is not installed; run: pip install 'maam\[deploy\]'$"):
            quantize(source, tmp_path / "q.xml", images)
