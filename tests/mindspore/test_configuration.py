"""`configure`: the settings in MindSpore's context, refusals, and the calls for Ascend, which is not needed."""

import os
import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest

from maam import DeploymentError, MissingFrameworkError, spec
from maam.errors import DeviceError
from maam.mindspore import Configuration, build, configuration, configure

IMPORT = """
import builtins, io, os
import mindspore

mindspore.__version__ = "2.10.0"
original = builtins.open
builtins.open = lambda path, *a, **k: io.StringIO("avx512f") if path == "/proc/cpuinfo" else original(path, *a, **k)
import maam.mindspore
print(os.environ["ONEDNN_MAX_CPU_ISA"])
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


def test_defaults_on_a_cpu():
    assert configure() == Configuration("cpu", "graph", "O0", False, "O0", False)
    assert ms.get_context("mode") == ms.GRAPH_MODE
    assert ms.get_context("device_target") == "CPU"
    assert ms.get_context("jit_config")["jit_level"] == "O0"
    assert ms.get_context("enable_graph_kernel") is False


def test_settings_reach_the_context():
    configure(device="cpu", mode="pynative")
    assert ms.get_context("mode") == ms.PYNATIVE_MODE
    configure(jit_level="O1")
    assert ms.get_context("mode") == ms.GRAPH_MODE
    assert ms.get_context("jit_config")["jit_level"] == "O1"


def test_graph_kernel(monkeypatch):
    monkeypatch.setattr("maam.errors.importlib.util.find_spec", lambda name: object())
    calls = {}
    with monkeypatch.context() as patched:  # a real graph kernel leaves files in the working folder
        patched.setattr(ms, "set_context", lambda **settings: calls.update(settings))
        assert configure(graph_kernel=True).graph_kernel
    assert calls["enable_graph_kernel"] is True
    monkeypatch.setattr("maam.errors.importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        MissingFrameworkError, match=r"^decorator is not installed; run: pip install 'maam\[mindspore\]'"
    ):
        configure(graph_kernel=True)


def test_ascend_defaults(ascend):
    found = configure()
    assert found == Configuration("ascend", "graph", "O1", False, "O2", False)
    assert ascend["device"] == "Ascend"
    assert ascend["context"]["jit_config"] == {"jit_level": "O1"}
    assert (ascend["conv_allow_hf32"], ascend["matmul_allow_hf32"]) == (True, True)
    assert "precision_mode" not in ascend


def test_ascend_parity(ascend):
    found = configure(device="ascend", parity=True, jit_level="O2")
    assert (found.amp_level, found.jit_level) == ("O0", "O2")
    assert (ascend["conv_allow_hf32"], ascend["matmul_allow_hf32"]) == (False, False)
    assert ascend["precision_mode"] == "must_keep_origin_dtype"


def test_an_absent_device():
    if ms.device_context.ascend.is_available():
        pytest.skip("there is one")
    message = r"^device 'ascend' is not available to MindSpore on this machine; available: cpu$"
    with pytest.raises(DeviceError, match=message):
        configure(device="ascend")
    with pytest.raises(DeviceError, match=r"^device: expected one of cpu, cuda, ascend, got 'tpu'$"):
        configure(device="tpu")


def test_a_device_that_mindspore_refuses(monkeypatch):
    def refuse(*_):
        raise RuntimeError("The runtime has been initialized\non another device")

    monkeypatch.setattr(ms.device_context.ascend, "is_available", lambda: True)
    monkeypatch.setattr(ms, "set_device", refuse)
    message = r"MindSpore cannot select it .The runtime has been initialized on.*call configure"
    with pytest.raises(DeviceError, match=message):
        configure(device="ascend")


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"mode": "eager"}, "^mode: expected one of graph, pynative, got 'eager'$"),
        ({"jit_level": "O3"}, "^jit_level: expected one of O0, O1, O2, got 'O3'$"),
        ({"amp_level": "O4"}, "^amp_level: expected one of O0, O1, O2, O3, auto, got 'O4'$"),
        ({"mode": "pynative", "jit_level": "O1"}, "^jit_level O1: needs graph mode, and mode is 'pynative'"),
        ({"mode": "pynative", "graph_kernel": True}, "^graph_kernel: needs graph mode"),
        ({"parity": True, "amp_level": "O2"}, "^amp_level O2: parity needs float32"),
        (
            {"device": "cpu", "jit_level": "O2"},
            "^jit_level O2: needs Ascend, and the device is 'cpu'",
        ),
    ],
    ids=str,
)
def test_refusals(settings, match):
    with pytest.raises(DeploymentError, match=match):
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


class TestInstructionCap:
    """The limit for versions whose oneDNN is slow with AVX-512."""

    @pytest.fixture(autouse=True)
    def _environment(self, monkeypatch):
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "")
        monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
        monkeypatch.setattr(configuration, "_has_avx512", lambda: True)

    def test_is_set_with_a_warning(self, monkeypatch):
        monkeypatch.setattr(ms, "__version__", "2.10.0")
        with pytest.warns(UserWarning, match="ONEDNN_MAX_CPU_ISA is set to AVX2; set the variable yourself"):
            configuration.cap_instructions()
        assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX2"
        configuration.cap_instructions()  # warns once

    def test_the_users_own_stays(self, monkeypatch):
        monkeypatch.setattr(ms, "__version__", "2.9.0")
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
        configuration.cap_instructions()
        assert os.environ["ONEDNN_MAX_CPU_ISA"] == "AVX512_CORE"

    @pytest.mark.parametrize(("version", "avx512"), [("2.8.0", True), ("2.9.0", False)])
    def test_is_not_set_without_need(self, monkeypatch, version, avx512):
        monkeypatch.setattr(ms, "__version__", version)
        monkeypatch.setattr(configuration, "_has_avx512", lambda: avx512)
        configuration.cap_instructions()
        assert "ONEDNN_MAX_CPU_ISA" not in os.environ

    @pytest.mark.parametrize("own", [None, pytest.param("AVX512_CORE", marks=pytest.mark.slow)])
    def test_importing_sets_it(self, own):
        """A new process pretends to have MindSpore 2.10 and a processor with AVX-512."""
        environment = {name: value for name, value in os.environ.items() if name != "ONEDNN_MAX_CPU_ISA"}
        environment |= {} if own is None else {"ONEDNN_MAX_CPU_ISA": own}
        command = [sys.executable, "-c", IMPORT]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
        assert done.stdout.strip() == (own or "AVX2")
        assert done.stderr.count("ONEDNN_MAX_CPU_ISA is set to AVX2") == (own is None)
