"""int8 files of both engines, and the errors, which leave no file."""

import json
from unittest.mock import Mock

import numpy as np
import pytest

from maam import DataError, DeploymentError, MissingFrameworkError, ShapeError, data, spec
from maam.deploy import FORMATS, MIN_IMAGES, open_exported, quantization, quantize
from maam.reference import ReferenceModel
from maam.weights import write_weights

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
    pytest.mark.usefixtures("engines"),
]
NODE = spec.preset("maam_digits")
ARRAYS = spec.draw(NODE.parameters(), 3)


@pytest.fixture
def source(tmp_path):
    write_weights(tmp_path / "in.safetensors", NODE, ARRAYS)
    return tmp_path / "in.safetensors"


@pytest.fixture(scope="module")
def images():
    return data.to_float(data.digits("train").images)[:MIN_IMAGES]


@pytest.fixture(scope="module")
def engines():
    for package in (*(name for key in ("onnx", "openvino") for name, _ in FORMATS[key].packages), "nncf", "sklearn"):
        pytest.importorskip(package)


@pytest.mark.parametrize(("engine", "name"), [("openvino", "q.xml"), ("onnxruntime", "q.onnx")])
def test_files_of_both_engines(engine, name, source, images, tmp_path):
    seen = []

    def accept(before, after):
        seen.append(np.abs(before(images) - after(images)).max())

    found = quantize(source, tmp_path / name, images, class_names=list("0123456789"), accept=accept)
    assert found.engine == engine
    assert found.size_after < found.size_before == source.stat().st_size
    assert found.signal_to_noise > 15
    assert sorted(tmp_path.iterdir()) == sorted([source, *found.files])
    predict, metadata = open_exported(tmp_path / name)
    expected = ReferenceModel(NODE, ARRAYS)(images[:5])
    difference = np.abs(predict(images[:5]) - expected).max()
    assert 0 < difference < 0.2 * np.abs(expected).max()  # different, because int8, but close
    assert len(seen) == 1
    assert seen[0] > 0
    assert metadata["maam.precision"] == "int8"
    assert json.loads(metadata["maam.class_names"])[3] == "3"
    text = b"".join(path.read_bytes() for path in found.files)
    assert b"FakeQuantize" in text or b"QuantizeLinear" in text


@pytest.mark.parametrize(("name", "sensitive"), [("q.xml", {"classifier.fc2"}), ("q.onnx", set())])
def test_sensitive_layers_stay_in_float32(name, sensitive, images, tmp_path):
    """One channel of a map is 3,000 times as large as the others, which int8 rounds to zero.

    Only NNCF cuts the outliers of the last layer's input off.
    """
    bound, counts = (1.5e-2 if name == "q.xml" else 1e-2), []
    weight = np.array([3000, *np.ones(len(ARRAYS["reduce.bn.weight"]) - 1)], np.float32)
    write_weights(tmp_path / "spoilt.safetensors", NODE, ARRAYS | {"reduce.bn.weight": weight})

    def accept(before, after):
        counts.append(np.square(before(images) - after(images)).mean() / np.square(before(images)).mean())
        if counts[-1] > bound:
            raise DeploymentError("too much noise")

    found = quantize(tmp_path / "spoilt.safetensors", tmp_path / name, images, accept=accept)
    assert {"reduce.conv", "classifier.fc1"} | sensitive <= set(found.float_layers)
    assert counts[-1] < bound < counts[0], counts
    assert len(found.float_layers) <= 4


@pytest.mark.parametrize("name", ["float32.onnx", "model.onnx", "prepared.onnx"])
def test_names_of_temporary_files_are_allowed(name, source, images, tmp_path):
    """The int8 outputs are compared with the float32 model, whatever the file is called."""
    assert quantize(source, tmp_path / name, images).signal_to_noise < 100
    assert sorted(tmp_path.iterdir()) == sorted([source, tmp_path / name])


class TestErrors:
    @pytest.fixture
    def refused(self, source, images, tmp_path):
        def check(error, match, given=images, name="q.onnx", **options):
            with pytest.raises(error, match=match):
                quantize(source, tmp_path / name, given, **options)
            assert list(tmp_path.iterdir()) == [source]

        return check

    def test_calibration_images(self, refused, images):
        refused(DataError, r"calibration images: expected at least 64, got 63$", images[:63])
        refused(DataError, r"expected a float32 array \(N, C, H, W\), got uint8", images.astype("u1"))
        refused(DataError, "got list", [1, 2])
        refused(ShapeError, r"expected an input \(N, 1, 8, 8\), got \(64, 1, 8, 4\)", images[..., :4])
        refused(ShapeError, r"expected an input \(N, 1, 8, 8\)", images[0])
        refused(DataError, "NaN or infinity", np.where(images > 0.9, np.float32("nan"), images))

    def test_arguments(self, refused):
        refused(DeploymentError, r"expected a name that ends in \.xml \(openvino\) or \.onnx", name="q.pt2")
        refused(DeploymentError, "engine: expected one of openvino, onnxruntime, got 'torch'", engine="torch")
        refused(DeploymentError, r"expected a name that ends in \.xml for format openvino", engine="openvino")
        refused(DeploymentError, "the folder .* does not exist", name="none/q.onnx")
        refused(DeploymentError, "class_names: expected 10 names", class_names=["a"])
        accept = Mock(side_effect=DeploymentError("too bad"))
        refused(DeploymentError, r"^too bad; 6 of 12 layers in float32 do not suffice$", accept=accept)

    def test_outputs_that_differ_too_much(self, refused, monkeypatch):
        own = quantization.QUANTIZERS["onnxruntime"]
        narrow = own._replace(write=lambda source, target, x, *rest: own.write(source, target, x * 1e-3, *rest))
        monkeypatch.setitem(quantization.QUANTIZERS, "onnxruntime", narrow)
        refused(DeploymentError, r"int8 outputs have a signal-to-noise ratio of -?\d+ dB.*preprocessed as in training")


def test_a_missing_package(source, images, tmp_path, monkeypatch):
    monkeypatch.setattr("maam.errors.importlib.util.find_spec", lambda n: None if n == "nncf" else object())
    with pytest.raises(MissingFrameworkError, match=r"^nncf is not installed; run: pip install 'maam\[deploy\]'$"):
        quantize(source, tmp_path / "q.xml", images)
