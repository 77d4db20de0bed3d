"""`configure`: the settings in MindSpore's context, refusals, and the calls for Ascend, which is not needed."""

import os
import subprocess
import sys
from unittest.mock import Mock

import mindspore as ms
import numpy as np
import pytest

from maam import DeploymentError, MissingFrameworkError, spec
from maam.errors import DeviceError
from maam.mindspore import Configuration, build, configuration, configure
from tests.errors import error_of

IMPORT = """
import ctypes, os
from pathlib import Path
import mindspore
import maam._system

mindspore.__version__ = "2.10.0"
maam._system.cpu_features = lambda: ["avx2", "avx512f"]
import maam.mindspore
library, = (Path(mindspore.__file__).parent / "lib").glob("libdnnl.so*")
print(ctypes.CDLL(str(library)).dnnl_get_effective_cpu_isa(), os.environ.get("ONEDNN_MAX_CPU_ISA"))
"""


@pytest.fixture(autouse=True)
def _context():
    before = ms.get_context("mode")
    yield
    ms.set_context(mode=before, jit_config={"jit_level": "O0"}, enable_graph_kernel=False)


@pytest.fixture
def ascend(monkeypatch):
    """Pretend that Ascend is available, and return the arguments of the calls."""
    calls = {}

    def record(name):
        return lambda *args, **kwargs: calls.__setitem__(name, args[0] if args else kwargs)

    precision = ms.device_context.ascend.op_precision
    monkeypatch.setattr(ms.device_context.ascend, "is_available", lambda: True)
    for name in ("conv_allow_hf32", "matmul_allow_hf32", "precision_mode"):
        monkeypatch.setattr(precision, name, record(name))
    monkeypatch.setattr(ms, "set_device", record("device"))
    monkeypatch.setattr(ms, "set_context", record("context"))
    return calls


def test_settings_reach_the_context():
    assert configure() == Configuration("cpu", "graph", "O0", False, "O0", False)
    assert (ms.get_context("mode"), ms.get_context("device_target")) == (ms.GRAPH_MODE, "CPU")
    assert ms.get_context("jit_config")["jit_level"] == "O0"
    assert ms.get_context("enable_graph_kernel") is False
    configure(device="cpu", mode="pynative")
    assert ms.get_context("mode") == ms.PYNATIVE_MODE
    configure(jit_level="O1")
    assert ms.get_context("mode") == ms.GRAPH_MODE
    assert ms.get_context("jit_config")["jit_level"] == "O1"


def test_graph_kernel(monkeypatch):
    calls = {}
    with monkeypatch.context() as patched:  # a real graph kernel leaves files in the working folder
        patched.setattr("maam.errors.importlib.util.find_spec", lambda name: object())
        patched.setattr(ms, "set_context", lambda **settings: calls.update(settings))
        assert configure(graph_kernel=True).graph_kernel
    assert calls["enable_graph_kernel"] is True
    monkeypatch.setattr("maam.errors.importlib.util.find_spec", lambda name: None)
    message = error_of(MissingFrameworkError, configure, graph_kernel=True)
    assert message.startswith("decorator is not installed; run: pip install 'maam[mindspore]'")


def test_ascend(ascend):
    assert configure() == Configuration("ascend", "graph", "O1", False, "O2", False)
    assert ascend["device"] == "Ascend"
    assert ascend["context"]["jit_config"] == {"jit_level": "O1"}
    assert (ascend["conv_allow_hf32"], ascend["matmul_allow_hf32"]) == (True, True)
    assert "precision_mode" not in ascend
    found = configure(device="ascend", parity=True, jit_level="O2")
    assert (found.amp_level, found.jit_level) == ("O0", "O2")
    assert (ascend["conv_allow_hf32"], ascend["matmul_allow_hf32"]) == (False, False)
    assert ascend["precision_mode"] == "must_keep_origin_dtype"


def test_a_device_that_mindspore_refuses(monkeypatch):
    error = RuntimeError("The runtime has been initialized\non another device")
    monkeypatch.setattr(ms.device_context.ascend, "is_available", lambda: True)
    monkeypatch.setattr(ms, "set_device", Mock(side_effect=error))
    message = r"MindSpore cannot select it .The runtime has been initialized on.*call configure"
    with pytest.raises(DeviceError, match=message):
        configure(device="ascend")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"device": "ascend"}, "^device 'ascend' is not available to MindSpore on this machine; available: cpu$"),
        ({"device": "tpu"}, "^device: expected one of cpu, cuda, ascend, got 'tpu'$"),
        ({"mode": "eager"}, "^mode: expected one of graph, pynative, got 'eager'$"),
        ({"jit_level": "O3"}, "^jit_level: expected one of O0, O1, O2, got 'O3'$"),
        ({"amp_level": "O4"}, "^amp_level: expected one of O0, O1, O2, O3, auto, got 'O4'$"),
        ({"mode": "pynative", "jit_level": "O1"}, "^jit_level O1: needs graph mode, and mode is 'pynative'"),
        ({"mode": "pynative", "graph_kernel": True}, "^graph_kernel: needs graph mode"),
        ({"parity": True, "amp_level": "O2"}, "^amp_level O2: parity needs float32"),
        ({"device": "cpu", "jit_level": "O2"}, "^jit_level O2: needs Ascend, and the device is 'cpu'"),
    ],
    ids=str,
)
def test_refusals(settings, match):
    if settings == {"device": "ascend"} and ms.device_context.ascend.is_available():
        pytest.skip("Ascend is available")
    with pytest.raises(DeviceError if match.startswith("^device") else DeploymentError, match=match):
        configure(**settings)


@pytest.mark.parametrize("level", ["O0", "O2", "O3"])
def test_mixed_precision_is_applied(level):
    cell = build(spec.maam(4, num_agents=1), seed=0)
    x = ms.Tensor(np.random.default_rng(0).random((2, 4, 8, 8), np.float32))
    expected = cell(x).asnumpy()
    mixed = configure(amp_level=level).apply(cell)
    actual = mixed(x).asnumpy()
    if level == "O0":
        assert mixed is cell
    np.testing.assert_allclose(actual, expected, rtol=1e-2, atol=1e-2)
    assert np.array_equal(actual, expected) == (level == "O0")


@pytest.mark.parametrize(
    "call", ["reshape(2, 1)", *(pytest.param(c, marks=pytest.mark.slow) for c in ("transpose(0, 1)", "__add__(1)"))]
)
def test_the_first_operator_works_with_numpy_2(call):
    """Without the import of maam, reshape and transpose fail in MindSpore 2.10, and NumPy prints 50 lines."""
    code = f"import os, maam.mindspore, mindspore as ms; ms.set_device('CPU'); print(ms.Tensor([[1.0], [2.0]]).{call})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "[[" in done.stdout
    assert "NumPy" not in done.stderr


class TestInstructionCap:
    """The limit for versions whose oneDNN is slow with AVX-512."""

    @pytest.fixture(autouse=True)
    def limited(self, monkeypatch):
        monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
        monkeypatch.setattr(configuration, "cpu_features", lambda: ["avx512f"])
        monkeypatch.setattr(ms, "__version__", "2.10.0")
        calls = []
        monkeypatch.setattr(configuration, "_limit_onednn", lambda: calls.append("limit") or True)
        return calls

    def test_is_set(self, limited):
        configuration.cap_instructions()
        assert limited == ["limit"]

    def test_too_late(self, monkeypatch):
        monkeypatch.setattr(configuration, "_limit_onednn", lambda: False)
        with pytest.warns(
            UserWarning, match=r"import maam\.mindspore before the first operator runs, or set ONEDNN_MAX"
        ):
            configuration.cap_instructions()

    @pytest.mark.parametrize(
        ("version", "avx512", "own"), [("2.8.0", True, None), ("2.9.0", False, None), ("2.9.0", True, "AVX512_CORE")]
    )
    def test_is_not_set_without_need(self, monkeypatch, limited, version, avx512, own):
        monkeypatch.setattr(ms, "__version__", version)
        monkeypatch.setattr(configuration, "cpu_features", lambda: ["avx512f"] * avx512)
        if own:
            monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", own)
        configuration.cap_instructions()
        assert limited == []

    def test_importing_limits_the_library(self):
        """A new process pretends to have MindSpore 2.10 and AVX-512; the variable would also limit PyTorch."""
        environment = {name: value for name, value in os.environ.items() if name != "ONEDNN_MAX_CPU_ISA"}
        command = [sys.executable, "-c", IMPORT]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
        assert done.stdout.split() == ["7", "None"], done.stderr
        assert "AVX-512" not in done.stderr
