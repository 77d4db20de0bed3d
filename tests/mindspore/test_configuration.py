"""`configure`: the settings in MindSpore's context, refusals, and the calls for Ascend, which is not needed."""

import os
import re
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
    """Undo the settings besides the mode, which tests/conftest.py restores."""
    yield
    ms.set_context(jit_config={"jit_level": "O0"}, enable_graph_kernel=False)


@pytest.fixture
def ascend(monkeypatch):
    """Pretend that Ascend is available, and return the object that records the calls."""
    calls = Mock()
    monkeypatch.setattr(ms.device_context.ascend, "is_available", lambda: True)
    for name in ("conv_allow_hf32", "matmul_allow_hf32", "precision_mode"):
        monkeypatch.setattr(ms.device_context.ascend.op_precision, name, getattr(calls, name))
    for name in ("set_device", "set_context"):
        monkeypatch.setattr(ms, name, getattr(calls, name))
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
    with monkeypatch.context() as patched:  # a real graph kernel leaves files in the working folder
        patched.setattr("maam.errors.importlib.util.find_spec", lambda name: object())
        patched.setattr(ms, "set_context", context := Mock())
        assert configure(graph_kernel=True).graph_kernel
    assert context.call_args.kwargs["enable_graph_kernel"] is True
    monkeypatch.setattr("maam.errors.importlib.util.find_spec", lambda name: None)
    message = error_of(MissingFrameworkError, configure, graph_kernel=True)
    assert message.startswith("decorator is not installed; run: pip install 'maam[mindspore]'")


def test_ascend(ascend):
    assert configure() == Configuration("ascend", "graph", "O1", False, "O2", False)
    ascend.set_device.assert_called_with("Ascend")
    assert ascend.set_context.call_args.kwargs["jit_config"] == {"jit_level": "O1"}
    ascend.conv_allow_hf32.assert_called_with(True)
    ascend.matmul_allow_hf32.assert_called_with(True)
    ascend.precision_mode.assert_not_called()
    found = configure(device="ascend", parity=True, jit_level="O2")
    assert (found.amp_level, found.jit_level) == ("O0", "O2")
    ascend.conv_allow_hf32.assert_called_with(False)
    ascend.matmul_allow_hf32.assert_called_with(False)
    ascend.precision_mode.assert_called_with("must_keep_origin_dtype")


def test_a_device_that_mindspore_refuses(ascend):
    ascend.set_device.side_effect = RuntimeError("The runtime has been initialized\non another device")
    message = error_of(DeviceError, configure, device="ascend")
    assert re.search(r"MindSpore cannot select it .The runtime has been initialized on.*call configure", message)


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
    assert level != "O0" or mixed is cell
    np.testing.assert_allclose(actual, expected, rtol=1e-2, atol=1e-2)
    assert np.array_equal(actual, expected) == (level == "O0")


@pytest.mark.slow_in("transpose", "add")
@pytest.mark.parametrize("call", ["reshape(2, 1)", "transpose(0, 1)", "__add__(1)"])
def test_the_first_operator_works_with_numpy_2(call):
    """Without the import of maam, reshape and transpose fail in MindSpore 2.10, and NumPy prints 50 lines."""
    code = f"import os, maam.mindspore, mindspore as ms; ms.set_device('CPU'); print(ms.Tensor([[1.0], [2.0]]).{call})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "[[" in done.stdout
    assert "NumPy" not in done.stderr


class TestInstructionCap:
    """The limit for versions whose oneDNN is slow with AVX-512."""

    @pytest.fixture(autouse=True)
    def limit(self, monkeypatch):
        monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
        monkeypatch.setattr(configuration, "cpu_features", lambda: ["avx512f"])
        monkeypatch.setattr(ms, "__version__", "2.10.0")
        monkeypatch.setattr(configuration, "_limit_onednn", limit := Mock(return_value=True))
        return limit

    def test_too_late(self, limit):
        limit.return_value = False
        match = r"import maam\.mindspore before the first operator runs, or set ONEDNN_MAX"
        with pytest.warns(UserWarning, match=match):
            configuration.cap_instructions()

    @pytest.mark.parametrize(
        ("version", "features", "own", "calls"),
        [
            ("2.10.0", ["avx512f"], None, 1),
            ("2.8.0", ["avx512f"], None, 0),
            ("2.9.0", [], None, 0),
            ("2.9.0", ["avx512f"], "AVX512_CORE", 0),
        ],
    )
    def test_is_set_where_it_is_needed(self, monkeypatch, limit, version, features, own, calls):
        monkeypatch.setattr(ms, "__version__", version)
        monkeypatch.setattr(configuration, "cpu_features", lambda: features)
        if own:
            monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", own)
        configuration.cap_instructions()
        assert limit.call_count == calls

    def test_importing_limits_the_library(self):
        """A new process pretends to have MindSpore 2.10 and AVX-512; the variable would also limit PyTorch."""
        environment = {name: value for name, value in os.environ.items() if name != "ONEDNN_MAX_CPU_ISA"}
        command = [sys.executable, "-c", IMPORT]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
        assert done.stdout.split() == ["7", "None"], done.stderr
        assert "AVX-512" not in done.stderr
