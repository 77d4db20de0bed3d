"""Export: each format with a free batch axis, metadata, and errors that leave no file behind."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

if importlib.util.find_spec("mindspore"):
    import mindspore  # noqa: F401  # before onnx: both bring protobuf

import maam
from maam import DeploymentError, MissingFrameworkError, ShapeError, WeightsError, _system, export, spec
from maam.backend import load_backend
from maam.deploy import FORMATS, exporting, open_exported
from maam.deploy.metadata import make_metadata
from maam.errors import DeviceError
from maam.reference import ReferenceModel, save_weights
from tests.errors import error_of
from tests.frameworks import MindSpore, working_folder  # noqa: F401
from tests.parity.models import SMALL, scrambled

SIZES = {"channels": 8, "hidden_channels": 4, "hidden_features": 16}
LAYERS = [spec.BatchNorm2d(num_features=3), spec.Conv2d(in_channels=3, out_channels=16, kernel_size=3, padding=1)]
LAYERS += [spec.mafc(16, pool_types=("avg", "std", "max")), spec.mafb(16), spec.cbam(16), spec.GlobalPool()]
LAYERS += [spec.Flatten(), spec.Linear(in_features=16, out_features=10)]
GATED = spec.Model(name="gated", input_shape=(3, 8, 8), children={str(i): node for i, node in enumerate(LAYERS)})
DYNAMIC = spec.preset("maam_digits", **SIZES, scales=(1, 2, 1), fusion="dynamic")
HARD_SWISH = spec.preset("maam_digits", **SIZES, act_layer="hard_swish")
NAMES = [f"class {index}" for index in range(10)]
SIZE = r"size: expected an integer of at least 1 \(height and width are equal\), got"
OLD = bool(importlib.util.find_spec("torch")) and version("torch").startswith("2.8.")
no_max_pooling = pytest.mark.xfail(OLD, raises=DeploymentError, reason="PyTorch 2.8 cannot write it as ONNX")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def saved(node, arrays=None):
    """Write a weights file to the working folder; return its path and the reference."""
    reference = ReferenceModel(node, arrays or scrambled(node))
    save_weights(reference, "in.safetensors")
    return Path("in.safetensors"), reference


@pytest.fixture
def digits():
    pytest.importorskip("torch")
    return saved(SMALL)[0]


def import_packages(*names):
    for name in names:
        for package, _ in FORMATS[name].packages:
            pytest.importorskip(package)


@pytest.fixture(params=["onnx", "openvino", "pt2", "mindir"])
def name(request):
    import_packages(request.param)
    return request.param


def images(shape, count=2):
    return np.random.default_rng(9).normal(size=(count, *shape)).astype(np.float32)


def check_outputs(predict, expected, shape, counts=(2,), tolerance=1e-4):
    for count in counts:
        x = images(shape, count)
        np.testing.assert_allclose(predict(x), expected(x), rtol=tolerance, atol=tolerance)


@pytest.mark.slow_in("hard_swish", "gated")
@pytest.mark.parametrize("node", [DYNAMIC, HARD_SWISH, GATED], ids=["dynamic", "hard_swish", "gated"])
def test_every_format(name, node, tmp_path):
    source, reference = saved(node)
    folder = tmp_path / "blanks +(é)"  # MindSpore refuses such paths
    folder.mkdir()
    target = folder / f"model 1{FORMATS[name].suffix}"
    found = export(source, target, class_names=NAMES, mean=[0.5] * node.input_shape[0])
    assert found.format == name
    assert 0 <= found.difference < 1e-4
    assert sorted(folder.iterdir()) == sorted(found.files)
    predict, metadata = open_exported(target)
    check_outputs(predict, reference, node.input_shape, (1, 2, 5))
    assert json.loads(metadata["maam.class_names"]) == NAMES
    preprocessing = json.loads(metadata["maam.preprocessing"])
    assert (preprocessing["size"], preprocessing["mean"]) == ([8, 8], [0.5] * node.input_shape[0])
    assert "batch_norm2d" not in metadata["maam.spec"]
    check_that_other_inputs_are_errors(predict, node.input_shape)


def check_that_other_inputs_are_errors(predict, shape):
    channels, height, width = shape
    expected = re.escape(f"expected an input (N, {channels}, {height}, {width}), got ")
    wrong = [(2, channels, height + 1, width), (2, height, width, channels), (2, channels + 1, height, width), shape]
    for given in wrong:
        with pytest.raises(ShapeError, match=expected):
            predict(np.zeros(given, np.float32))
    with pytest.raises(ShapeError, match=r"expected a floating-point input .* got uint8"):
        predict(np.zeros((2, *shape), np.uint8))


@no_max_pooling
@pytest.mark.slow_in("mindir")
def test_free_height_and_width(name):
    source, reference = saved(GATED)
    target = f"model{FORMATS[name].suffix}"
    assert export(source, target, dynamic_size=True).difference < 1e-4
    predict, metadata = open_exported(target)
    assert json.loads(metadata["maam.preprocessing"])["size"] == [8, 8]
    for size in ((8, 8), (16, 9), (5, 12)):
        check_outputs(predict, reference, (3, *size))
    with pytest.raises(ShapeError, match=r"expected an input \(N, 3, H, W\), got \(2, 1, 8, 8\)"):
        predict(images((1, 8, 8)))


def axes(value):
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


@no_max_pooling
def test_onnx_has_standard_operators_and_is_read_without_the_exporter():
    import_packages("onnx")
    import onnx

    source, _ = saved(GATED)
    for options, shape in (({}, ["batch", 3, 8, 8]), ({"dynamic_size": True}, ["batch", 3, "height", "width"])):
        export(source, "model.onnx", overwrite=True, **options)
        model = onnx.load("model.onnx")
        assert (axes(model.graph.input[0]), axes(model.graph.output[0])) == (shape, ["batch", 10])
        symbols = [str(axis) for value in model.graph.value_info for axis in axes(value)]
        assert not re.search(r"\bs\d+\b", " ".join(symbols))
        onnx.checker.check_model(model, full_check=True)
        assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
        assert not model.functions
    program = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("torch", "onnx", "onnxscript") else find(name, *rest)
import numpy as np
from maam.deploy import open_exported
assert open_exported("model.onnx")[0](np.zeros((2, 3, 8, 8), np.float32)).shape == (2, 10)
assert "torch" not in sys.modules and "onnx" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("framework", ["torch", "mindspore", "reference"])
def test_models_are_exported_and_fused_like_their_files(framework):
    for package in {"torch", framework} - {"reference"}:
        pytest.importorskip(package)
    model, arrays = load_backend(framework).build(SMALL, seed=0), spec.draw(SMALL.parameters(), 0)
    assert export(model, "m.pt2").difference < 1e-4
    reference = ReferenceModel(SMALL, arrays)
    check_outputs(open_exported("m.pt2")[0], reference, (1, 8, 8))
    fused, fused_arrays = maam.fuse(model)
    assert fused == maam.fuse(SMALL, arrays)[0]
    check_outputs(ReferenceModel(fused, fused_arrays), reference, (1, 8, 8))


def test_fuse_takes_files_and_refuses_what_has_no_weights():
    source, reference = saved(GATED)
    node, arrays = maam.fuse(source)
    check_outputs(ReferenceModel(node, arrays), reference, (3, 8, 8))
    assert "a spec has no weights; pass its arrays too" in error_of(DeploymentError, maam.fuse, GATED)
    assert "arrays are only allowed with a spec" in error_of(DeploymentError, maam.fuse, source, arrays)
    expected = "expected the path of a weights file or a model of maam, got an object of type int"
    assert expected in error_of(DeploymentError, maam.fuse, 3)


OWN = """
import maam
for name in ("a.onnx", "a.mindir"):
    maam.export(maam.reference.build("maam_digits", seed=0), name)
"""
PROGRAMS = {"own": OWN, "foreign": "import onnx; import maam.mindspore"}


@pytest.mark.slow_in("own")
@pytest.mark.parametrize("order", PROGRAMS)
def test_orders_of_imports(order):
    """MindSpore before 2.10 ends the process when it is imported after onnx; later versions need no order."""
    import_packages("onnx", "mindir")
    environment = {key: text for key, text in os.environ.items() if not key.startswith("PROTOCOL_BUFFERS")}
    done = subprocess.run([sys.executable, "-c", PROGRAMS[order]], capture_output=True, text=True, env=environment)
    refused = order == "foreign" and _system._needs_python_protobuf()
    assert done.returncode == int(refused), done.stderr
    assert not refused or "cannot be imported after onnx, because both load protobuf" in done.stderr


@pytest.mark.slow_in("maam_cifar10_2m3", "mafc_v3_small")
@pytest.mark.parametrize("preset", ["maam_digits", "maam_cifar10_2m3", "mafc_v3_small"])
def test_executorch(preset):
    pytest.importorskip("executorch")
    node = spec.preset(preset)
    source, reference = saved(node, spec.draw(node.parameters(), 0))
    assert export(source, "m.pte").format == "executorch"
    predict, metadata = open_exported("m.pte")
    assert metadata["maam.name"] == node.name
    assert json.loads(metadata["maam.preprocessing"])["size"] == list(node.input_shape[1:])
    check_outputs(predict, reference, node.input_shape, (1, 5))


@pytest.mark.slow
def test_mindir_preserves_the_mode():
    import_packages("mindir")
    source, _ = saved(spec.maam(4))
    for name in ("pynative", "graph"):
        with MindSpore(name) as framework:
            before = framework.ms.get_context("mode")
            export(source, "layer.mindir", size=8, overwrite=True)
            open_exported("layer.mindir")[0](images((4, 8, 8)))
            assert framework.ms.get_context("mode") == before


class TestErrors:
    """A failed export leaves no file and changes none."""

    @pytest.fixture
    def refused(self, digits, tmp_path):
        (tmp_path / "there.pt2").write_bytes(b"old")

        def check(dst, match, **options):
            assert re.search(match, error_of(DeploymentError, export, digits, dst, **options))
            assert sorted(path.name for path in tmp_path.iterdir()) == ["in.safetensors", "there.pt2"]
            assert (tmp_path / "there.pt2").read_bytes() == b"old"

        return check

    @pytest.mark.parametrize(
        ("target", "message", "options"),
        [
            ("none/model.pt2", r"the folder .*none does not exist; create it first", {}),
            ("there.pt2", r"there\.pt2: the file exists; use another name, or overwrite=True", {}),
            ("model.tflite", r"unknown suffix '\.tflite'; known are \.onnx \(onnx\), ", {}),
            ("m.pt2", f"format: expected one of {', '.join(FORMATS)}, got 'coreml'", {"format": "coreml"}),
            ("m.pt2", r"expected a name that ends in \.onnx for format onnx", {"format": "onnx"}),
            ("m.pt2", "class_names: expected 10 names, one for each output, got 2", {"class_names": ["a", "b"]}),
            ("m.pt2", "mean: expected a list of 1 number, one for each channel, got 3", {"mean": [0, 0, 0]}),
            ("m.pt2", "std: expected positive values, got 0", {"std": [0]}),
            ("m.pt2", r"the model takes inputs \(N, 1, 8, 8\) only; a model with global", {"dynamic_size": True}),
            *(("m.pt2", SIZE, {"size": size}) for size in ("32", (32, 32), 32.0, 0, -3, True)),
        ],
    )
    def test_arguments(self, refused, target, message, options):
        refused(target, message, **options)

    @pytest.mark.parametrize("changed", [{"maam.spec": '{"kind": "later"}'}, {"maam.preprocessing": "{"}])
    def test_metadata_of_a_later_version(self, changed, refused, monkeypatch):
        monkeypatch.setattr(exporting, "make_metadata", lambda *a, **options: make_metadata(*a, **options) | changed)
        refused("m.pt2", r"m\.pt2: the file's metadata is not supported by this version of maam")

    def test_operators_that_the_format_does_not_have(self, refused, monkeypatch):
        monkeypatch.setattr("torch.export.export", Mock(side_effect=RuntimeError("no\nsuch operator")))
        refused("m.pt2", r"^torch\.export: no such operator$")

    def test_a_file_with_wrong_outputs(self, refused, monkeypatch):
        right = exporting.open_exported
        wrong = lambda path, **options: ((lambda x: right(path, **options)[0](x) + 0.01), {})  # noqa: E731
        monkeypatch.setattr(exporting, "open_exported", wrong)
        refused(
            "m.pt2", r"m\.pt2: the outputs of the written file differ from the model's by 1\.0e-02 with a batch of 1"
        )


@pytest.mark.parametrize("format", ["onnx", "openvino", "pt2", "executorch", "mindir"])
def test_a_missing_package(format, monkeypatch):
    package = {"onnx": "onnxruntime", "pt2": "torch", "mindir": "mindspore"}.get(format, format)
    extra = "deploy" if format in ("onnx", "openvino") else package
    source, _ = saved(SMALL)
    others = {name: object() for name in ("onnx", "onnxscript", "torch")} | {package: None}
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: others[name] if name in others else find_spec(name))
    message = error_of(MissingFrameworkError, export, source, f"m{FORMATS[format].suffix}")
    assert message == f"{package} is not installed; run: pip install 'maam[{extra}]'"


def test_the_size_of_a_model_that_takes_any_size():
    pytest.importorskip("torch")
    source, reference = saved(spec.preset("mafc_v3_small", num_classes=3))
    export(source, "m.pt2", size=64)
    check_outputs(open_exported("m.pt2")[0], reference, (3, 64, 64))
    message = error_of(ShapeError, export, saved(SMALL)[0], "n.pt2", size=16)
    assert "expected an input (N, 1, 8, 8), got (1, 1, 16, 16)" in message
    assert not Path("n.pt2").exists()


def test_metadata_from_numpy_values():
    node = spec.preset("maam_cifar10_2m3")
    found = make_metadata(node, (3, 32, 32), mean=np.full(3, 0.5, np.float32), std=np.full(3, 0.25), class_names=NAMES)
    assert json.loads(found["maam.preprocessing"])["mean"] == [0.5] * 3
    assert json.loads(found["maam.preprocessing"])["std"] == [0.25] * 3
    for field, given, expected in (
        ("class_names", ("abcdefghij", range(10), 10), "a list of strings"),
        ("mean", (0.5, "abc", [None] * 3), "a list of 3 numbers, one for each channel"),
    ):
        for value in given:
            message = error_of(DeploymentError, make_metadata, node, (3, 32, 32), **{field: value})
            assert f"{field}: expected {expected}, got" in message


def test_a_layer_without_fusion_permissions_and_overwrite():
    pytest.importorskip("torch")
    (source, reference), path = saved(spec.maam(4)), Path("m.pt2")
    before = os.umask(0o077)
    try:
        export(source, path, size=8)
        assert path.stat().st_mode & 0o777 == 0o600
        path.write_bytes(b"old")
        path.chmod(0o640)
        export(source, path, size=8, fused=False, overwrite=True)
        assert path.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)
    predict, metadata = open_exported(path)
    check_outputs(predict, reference, (4, 8, 8), tolerance=1e-5)
    assert "batch_norm2d" in metadata["maam.spec"]
    assert "maam.class_names" not in metadata
    check_that_other_inputs_are_errors(predict, (4, 8, 8))


def test_sources_and_files_that_cannot_be_read(tmp_path):
    message = error_of(DeploymentError, export, GATED, "model.onnx")
    assert "expected the path of a weights file or a model of maam, got an obj" in message
    import_packages("pt2", "onnx")
    assert "no such file" in error_of(WeightsError, export, "none.safetensors", "m.pt2")
    assert not list(tmp_path.iterdir())
    Path("bad.onnx").write_bytes(b"nothing")
    for name, message in (("none.pt2", "no such file"), ("bad.onnx", "cannot be read as onnx: ")):
        assert f"{name}: {message}" in error_of(DeploymentError, open_exported, name)


def test_air_is_written_by_mindspore_on_ascend(digits, monkeypatch):
    """Without an Ascend device, MindSpore's calls are recorded."""
    ms = pytest.importorskip("mindspore")
    write = Mock(side_effect=lambda *_, file_name, file_format: Path(file_name).write_bytes(b"air"))
    monkeypatch.setattr(ms.device_context.ascend, "is_available", lambda: True)
    monkeypatch.setattr(ms, "set_device", device := Mock())
    monkeypatch.setattr(ms, "export", write)
    found = export(digits, "model.air")
    model, example = write.call_args.args
    assert (example.shape, write.call_args.kwargs["file_format"], "bn1" in str(model)) == ((1, 1, 8, 8), "AIR", False)
    device.assert_called_with("Ascend")
    assert np.isnan(found.difference)
    assert [path.name for path in found.files] == ["model.air", "model.air.json"]
    message = error_of(DeploymentError, open_exported, "model.air")
    assert "model.air: air files cannot be run here; compile the file with atc" in message


def test_air_without_ascend(digits, tmp_path):
    ms = pytest.importorskip("mindspore")
    if ms.device_context.ascend.is_available():
        pytest.skip("an Ascend device is available")
    message = error_of(DeviceError, export, digits, "model.air")
    assert message == "device 'ascend' is not available to MindSpore on this machine; available: cpu"
    assert [path.name for path in tmp_path.iterdir()] == [digits.name]


SIGNALS = """
import faulthandler, signal
from maam.backend.engines import open_openvino
faulthandler.enable()
first, second = (open_openvino("m.onnx") for _ in range(2))
del first
del second
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
signal.raise_signal(signal.SIGUSR1)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="OpenVINO sets a signal stack on Linux only")
def test_signals_are_handled_after_openvino():
    """Its CPU plugin leaves an unmapped stack for signals, if its instances end in the order in which they began."""
    pytest.importorskip("openvino")
    import_packages("onnx")
    export(saved(spec.preset("maam_digits"))[0], "m.onnx")
    done = subprocess.run([sys.executable, "-c", SIGNALS], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
