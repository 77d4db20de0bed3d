"""Inputs that models refuse, with the same message in every framework."""

from functools import partial

import numpy as np
import pytest

from maam import spec
from maam.errors import ShapeError, SpecError
from tests.errors import error_of

EXPECTED = "expected an input (N, 4, H, W) with H, W >= 2, got "
FLOATING = "expected a floating-point input (N, 4, H, W) with H, W >= 2, got "
DTYPE = "expected an input of dtype float32, the dtype of the parameters, got "
SHAPE = (2, 4, 8, 8)
INTEGERS, NARROWER = ("int32", "uint8", "int64", "bool"), ("float16", "bfloat16")
BAD = {
    "rank": ((4, 8, 8), "float32", EXPECTED + "3 dimensions: (4, 8, 8)"),
    "vector": ((2, 4), "float32", EXPECTED + "2 dimensions: (2, 4)"),
    "channels": ((2, 3, 8, 8), "float32", EXPECTED + "(2, 3, 8, 8)"),
    "height": ((2, 4, 1, 8), "float32", EXPECTED + "(2, 4, 1, 8)"),
    "width": ((2, 4, 8, 1), "float32", EXPECTED + "(2, 4, 8, 1)"),
    **{n: (SHAPE, n, FLOATING + n + "; convert it and scale images to [0, 1]") for n in INTEGERS},
    **{n: (SHAPE, n, DTYPE + n + "; convert the input or the model") for n in ("float64", *NARROWER)},
}


refused = partial(error_of, ShapeError)


def make_layer(backend):
    return backend.maam.MAAM(4, scales=(1, 2, 1))


@pytest.mark.parametrize("bad", BAD)
def test_of_a_layer(runtime, bad):
    shape, dtype, message = BAD[bad]
    x = (runtime.torch if runtime.name == "torch" else runtime.ms.ops).zeros(shape, dtype=runtime.dtype(dtype))
    calls = [make_layer(runtime), runtime.chain(make_layer(runtime), runtime.nn.ReLU())]
    if runtime.name == "mindspore":
        calls.append(runtime.ms.jit(make_layer(runtime)))
    for call in calls[:1] if dtype in NARROWER else calls:  # a graph does not know whether mixed precision is on
        assert refused(call, x) == message


def test_objects_that_are_no_tensors(backend):
    for x in (None, [1.0], np.zeros((1, 4, 4, 4), np.float32)):
        message = refused(make_layer(backend), x)
        assert message.startswith(f"expected a {backend.name}.Tensor (N, 4, H, W)")
        assert f", got {type(x).__name__}; convert it with " in message


def test_a_tensor_of_another_framework(backend):
    other = pytest.importorskip({"torch": "mindspore", "mindspore": "torch"}[backend.name])
    tensor = (other.ops if other.__name__ == "mindspore" else other).ones(SHAPE)
    assert f"expected a {backend.name}.Tensor" in refused(make_layer(backend), tensor)


def test_a_model_of_one_size(runtime, small):
    model, x = runtime.maam.build(small), runtime.tensor(np.zeros((2, 1, 9, 9), np.float32))
    for call in (model, runtime.chain(model)):
        advice = "a preset takes such images if it is built with image_size=9"
        assert refused(call, x) == f"expected an input (N, 1, 8, 8), got (2, 1, 9, 9); {advice}"


def test_a_layer_works_after_a_refusal(runtime):
    network = runtime.chain(make_layer(runtime))
    assert refused(runtime.call, network, np.zeros((2, 4, 1, 8), np.float32))
    assert runtime.call(network, np.zeros((2, 4, 2, 3), np.float32)).shape == (2, 4, 2, 3)


def test_only_the_outermost_module_checks(backend):
    layer = make_layer(backend)
    assert layer.rule is not None
    assert all(getattr(module, "rule", None) is None for module in backend.modules(layer) if module is not layer)


class TestLayerNames:
    """Names of layers in a spec that a framework needs itself."""

    def test_reserved_names(self, backend):
        kind, names = {
            "torch": ("PyTorch module", "kind names forward train rule put"),
            "mindspore": ("MindSpore cell", "kind phase construct cell_list cells set_train rule"),
        }[backend.name]
        for name in names.split():
            node = spec.Sequential(children={name: spec.Activation(function="relu")})
            message = error_of(SpecError, backend.maam.build, node)
            assert f"layer name '{name}' is an attribute of a {kind}; choose another" in message

    @pytest.mark.parametrize("name", ["merge", "weights", "stride", "count", "append_", "layers", "fingerprint"])
    def test_free_names(self, backend, name):
        conv = spec.Conv2d(in_channels=1, out_channels=1, kernel_size=1, bias=False)
        node = spec.Sequential(children={name: conv, "act": spec.Activation(function="relu")})
        model = backend.maam.build(node, seed=1)
        weight = backend.read(model)[f"{name}.weight"].item()
        x = np.linspace(-1, 1, 4, dtype=np.float32).reshape(1, 1, 2, 2)
        np.testing.assert_allclose(backend.call(model, x), np.maximum(weight * x, 0), rtol=1e-6)


@pytest.mark.parametrize("backend", ["torch"], indirect=True)
class TestTorch:
    def test_weights_of_half_precision(self, backend):
        message = refused(make_layer(backend).half(), backend.torch.zeros(SHAPE))
        assert message.startswith(
            "expected an input of dtype float16, the dtype of the parameters, got float32; "
            "convert the input or the model; for a file in half precision use load"
        )

    def test_autocast_takes_the_dtypes_that_it_converts(self, backend):
        layer, torch = make_layer(backend), backend.torch
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(torch.zeros(SHAPE, dtype=torch.bfloat16)).dtype == torch.bfloat16
            for name in ("float64", "int64"):
                assert name in refused(layer, torch.zeros(SHAPE, dtype=backend.dtype(name)))

    def test_the_meta_device_has_no_autocast(self, backend):
        layer, torch = backend.maam.MAAM(4, device="meta"), backend.torch
        assert layer(torch.zeros(SHAPE, device="meta")).shape == SHAPE
        assert "got float64" in refused(layer, torch.zeros(SHAPE, device="meta", dtype=torch.float64))
