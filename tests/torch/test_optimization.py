"""`optimize`: the same outputs from a copy, in every engine and precision, and its refusals."""

import copy
import sys
import time
from functools import partial
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from maam import DeploymentError, MissingFrameworkError, ShapeError, spec
from maam.backend.engines import ENGINES
from maam.errors import DeviceError
from maam.torch import MAAM, build, optimization, optimize
from maam.torch.engines import BUILDERS
from tests.errors import error_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
SMALL = {"channels": 8, "hidden_channels": 4, "hidden_features": 16}
TOLERANCE = {"fp32": 1e-4, "bf16": 0.1, "fp16": 0.01}
IDENTITY = nn.Identity().eval()


@pytest.fixture(scope="module")
def model(scramble):
    return scramble(build(spec.preset("maam_digits", **SMALL, in_channels=3))).eval()


@pytest.fixture
def x():
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def close(actual, expected, precision="fp32"):
    scale = TOLERANCE[precision]
    torch.testing.assert_close(actual, expected, rtol=scale, atol=scale)


def check(fast, model, x):
    with torch.inference_mode():
        for images in (x, torch.rand(5, *x.shape[1:]), x[:1]):  # the second was made in inference mode
            y = fast(images)
            assert y.dtype == torch.float32
            close(y, model(images), fast.precision)


@pytest.mark.slow_in("fp32-True", "fp16-True", "auto-True")
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "auto"])
def test_pytorch(model, x, precision, compile):
    fast = optimize(model, x, precision=precision, compile=compile)
    assert fast.engine == "torch"
    assert fast.precision == precision or precision == "auto"
    for context in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with context():
            y = fast(x)
        assert (y.dtype, y.requires_grad) == (torch.float32, False)
        close(y, model(x).detach(), fast.precision)
    check(fast, model, x)


@pytest.mark.slow_in("openvino-auto")
@pytest.mark.parametrize(("engine", "precision"), [("onnxruntime", "auto"), ("openvino", "fp32"), ("openvino", "auto")])
def test_engines(model, x, engine, precision):
    for package in ENGINES[engine].packages:
        pytest.importorskip(package)
    check(optimize(model, x, engine=engine, precision=precision), model, x)


@pytest.mark.slow_in("True")
@pytest.mark.parametrize("compile", [False, True])
def test_model_and_function_are_independent(model, x, compile):
    own = copy.deepcopy(model)
    fast = optimize(own, x, precision="fp32", compile=compile)
    expected = fast(x)
    assert own.spec == model.spec
    torch.testing.assert_close(own.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert all(p.requires_grad for p in own.parameters())
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.zero_()
    torch.testing.assert_close(fast(x), expected, rtol=0, atol=0)
    assert not torch.allclose(own(x), expected)


def test_one_channel(scramble, x):
    """The two memory formats have the same strides, which compiled code confuses."""
    model = scramble(build(spec.preset("maam_digits", **SMALL))).eval()
    fast = optimize(model, x[:, :1], precision="fp32")
    assert fast.form == "fused"
    check(fast, model, x[:, :1])


def test_a_network_that_contains_a_layer(scramble, x):
    parts = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), MAAM(4), nn.Flatten(), nn.Linear(256, 2)
    model = scramble(nn.Sequential(*parts)).eval()
    check(optimize(model, x, precision="fp32", compile=False), model, x)
    assert isinstance(model[2].reduce.bn, nn.BatchNorm2d)


def test_many_models_are_all_compiled():
    """Dynamo compiles at most eight variants of one code object, and would not compile the ninth."""
    tiny, maps = nn.Conv2d(3, 3, 1).eval(), torch.rand(1, 3, 2, 2)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        for _ in range(9):
            optimize(tiny, maps, precision="fp32")


def test_without_a_compiler(model, x, monkeypatch):
    fail = Mock(side_effect=RuntimeError("no compiler\nfound"))
    monkeypatch.setattr(torch, "compile", lambda function: fail)
    with pytest.warns(UserWarning, match="torch.compile failed, so the model is not compiled: no compiler found"):
        fast = optimize(model, x, precision="fp32")
    check(fast, model, x)


class Slow(nn.Conv2d):
    """A model that takes 10 ms."""

    def quick(self, x):
        return super().forward(x).mean((2, 3))

    def forward(self, x):
        time.sleep(0.01)
        return self.quick(x)


CHOICES = [
    (((0.02, 0), (0, 0), (0.005, 0)), ("openvino", "fused")),
    (((0.02, 0), (0, 0.1), (0.02, 0)), ("torch", "unchanged")),
    (((0.005, 0), (0, 0.1), DeploymentError("no export")), ("torch", "fused")),
    (((0.02, 0), OSError("no kernel"), (0, 0)), ("onnxruntime", "fused")),
]
"""Seconds and error of PyTorch, OpenVINO and ONNX Runtime, with the engine and the form to choose."""


class TestAutomaticEngine:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MAAM_CACHE", str(tmp_path))
        return tmp_path / "engines"

    @pytest.fixture
    def imitate(self, monkeypatch):
        """Replace the engines by ones that take given seconds and add a given error, or that raise."""
        opened = []

        def build(name, what, source, precision):
            opened.append(name)
            if isinstance(what, Exception):
                raise what
            seconds, error = what
            return {"fused": lambda x: (time.sleep(seconds), source.model.quick(x) + error)[1]}

        def install(**engines):
            monkeypatch.setattr(optimization, "check_engine", lambda engine, device: None)
            for name in list(BUILDERS):
                monkeypatch.setitem(BUILDERS, name, partial(build, name, engines[name]))
            opened.clear()
            return opened

        return install

    @pytest.mark.parametrize(("times_and_errors", "expected"), CHOICES)
    def test_choice(self, x, imitate, cache, times_and_errors, expected):
        """An engine that is slower than eager mode, has other outputs or fails is not chosen; the choice is kept."""
        model = Slow(3, 2, 1).eval()
        engines = dict(zip(("torch", "openvino", "onnxruntime"), times_and_errors, strict=True))
        opened = imitate(**engines)
        fast = optimize(model, x, engine="auto", precision="fp32")
        assert (fast.engine, fast.form) == expected
        assert opened == list(engines)
        close(fast(x), model.quick(x).detach())
        opened.clear()
        again = optimize(Slow(3, 2, 1).eval(), x, engine="auto", precision="fp32")
        assert (again.engine, again.form) == expected
        assert opened == ([] if expected[1] == "unchanged" else [expected[0]])
        assert len(list(cache.iterdir())) == 1
        imitate(**{**engines, expected[0]: (0, 0.1)})
        other = optimize(model, x, engine="auto", precision="fp32")  # its outputs are checked again
        close(other(x), model.quick(x).detach())

    def test_the_cache_can_be_off(self, x, imitate, cache, monkeypatch):
        imitate(torch=(0, 0), openvino=(0.01, 0), onnxruntime=(0.01, 0))
        optimize(Slow(3, 2, 1).eval(), x, engine="auto", precision="fp32", cache=False)
        monkeypatch.setenv("MAAM_CACHE", "off")
        optimize(Slow(3, 2, 1).eval(), x, engine="auto", precision="fp32")
        assert not cache.exists()

    def test_a_long_call_is_measured_with_part_of_the_batch(self, imitate, monkeypatch):
        imitate(torch=(0, 0), openvino=(0.01, 0), onnxruntime=(0.01, 0))
        monkeypatch.setattr(optimization, "LONGEST_CALL", 0.002)
        sizes, quick = [], Slow.quick
        monkeypatch.setattr(Slow, "quick", lambda module, x: (sizes.append(len(x)), quick(module, x))[1])
        optimize(Slow(3, 2, 1).eval(), torch.rand(64, 3, 8, 8), engine="auto", precision="fp32")
        assert sizes[:2] == [64, 64]
        assert 1 <= max(sizes[2:]) < 64

    def test_real_engines(self, model, x):
        start = time.perf_counter()
        fast = optimize(model, x, engine="auto")
        assert time.perf_counter() - start < 30  # 3 s alone on this machine
        check(fast, model, x)


class Pair(nn.Identity):
    def forward(self, x):
        return x, x


REFUSED = [
    (Pair().eval(), {}, "optimize: expected a module that returns a tensor, got a tuple"),
    ("maam_digits", {}, "optimize: model: expected a torch.nn.Module, got an object of type str; make"),
    (IDENTITY, {"example": [1]}, "optimize: example: expected a tensor (N, C, H, W), got an object of type l"),
    (nn.Identity(), {}, "optimize: the model is in train mode; call eval() first"),
    (IDENTITY, {"engine": "tensorrt"}, "engine: expected one of torch, onnxruntime, openvino, auto, got 't"),
]
PRECISIONS = [
    ("torch", "int4", "precision 'int4': PyTorch does not support it on cpu; supported: "),
    ("onnxruntime", "bf16", "precision 'bf16': onnxruntime does not support it on this CPU; supported: fp32"),
    ("openvino", "fp16", "precision 'fp16': openvino does not support it on this CPU; supported: fp32"),
]


class TestRefusals:
    @pytest.mark.parametrize(("module", "options", "message"), REFUSED)
    def test_arguments(self, x, module, options, message):
        assert error_of(DeploymentError, optimize, module, **{"example": x, **options}).startswith(message)

    def test_a_missing_package(self, model, x, monkeypatch):
        monkeypatch.setattr("maam.errors.importlib.util.find_spec", lambda name: None)
        message = error_of(MissingFrameworkError, optimize, model, x, engine="openvino")
        assert message == "onnx is not installed; run: pip install 'maam[deploy]'"

    @pytest.mark.parametrize(("engine", "precision", "message"), PRECISIONS)
    def test_precisions(self, model, x, engine, precision, message, monkeypatch):
        monkeypatch.setattr("maam.errors.importlib.util.find_spec", lambda name: sys)
        assert message in error_of(DeviceError, optimize, model, x, engine=engine, precision=precision)

    def test_inputs(self, model, x):
        assert "expected an input" in error_of(ShapeError, optimize, model, x[0])
        fast = optimize(model, x, precision="fp32", compile=False)
        for wrong in (x[:, :, :4], x.double(), (x * 255).byte(), x[0]):
            assert "expected a" in error_of(ShapeError, fast, wrong)

    def test_a_wrong_result(self, model, x, monkeypatch):
        engine = BUILDERS["torch"]
        monkeypatch.setitem(BUILDERS, "torch", lambda *args: {"fused": lambda x: engine(*args)["fused"](x) + 0.1})
        message = error_of(DeploymentError, optimize, model, x, precision="fp32", compile=False)
        assert "the result differs from the model's output by 1.0e-01" in message
