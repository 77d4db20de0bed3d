"""The gates in ONNX: operators of the standard alone, from both frameworks, and ONNX Runtime gives the same numbers."""

import importlib.util

import numpy as np
import pytest

if importlib.util.find_spec("mindspore"):
    import mindspore as ms  # before onnx: both bring protobuf
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CASES = [
    *((name, {}) for name in ("MAF", "MAFC", "MAFB", "SE", "CBAM")),
    ("MAFC", {"pool_types": ("avg", "std", "max")}),
    ("MAF", {"pool_types": "std"}),
]
SHAPE = (2, 16, 7, 9)
STANDARD = ("", "ai.onnx")


def maps(shape=SHAPE):
    """Ordinary maps, and a constant one."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal(shape).astype(np.float32)
    images[-1] = 0.5
    return images


def run(path, x):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} <= set(STANDARD)
    assert {opset.domain for opset in model.opset_import} <= set(STANDARD)
    assert not model.functions
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # inside PyTorch's exporter
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_pytorch_with_a_free_batch(name, options, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    import maam.torch

    layer = getattr(maam.torch, name)(SHAPE[1], **options).eval()
    batch = ({0: torch.export.Dim("batch")},)
    path = str(tmp_path / "gate.onnx")
    torch.onnx.export(layer, (torch.from_numpy(maps()),), path, dynamo=True, dynamic_shapes=batch, verbose=False)
    for count in (1, 5):
        x = maps((count, *SHAPE[1:]))
        with torch.no_grad():
            close(run(path, x), layer(torch.from_numpy(x)).numpy())


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_mindspore(name, options, tmp_path):
    pytest.importorskip("mindspore")
    import maam.mindspore

    layer, x = getattr(maam.mindspore, name)(SHAPE[1], **options), maps()
    ms.export(layer, ms.Tensor(x), file_name=str(tmp_path / "gate"), file_format="ONNX")
    close(run(str(tmp_path / "gate.onnx"), x), layer(ms.Tensor(x)).asnumpy())


def test_mindspore_a_map_of_one_position(tmp_path):
    pytest.importorskip("mindspore")
    import maam.mindspore

    layer, x = maam.mindspore.MAFC(8), maps((2, 8, 1, 1))
    ms.export(layer, ms.Tensor(x), file_name=str(tmp_path / "gate"), file_format="ONNX")
    close(run(str(tmp_path / "gate.onnx"), x), layer(ms.Tensor(x)).asnumpy())
