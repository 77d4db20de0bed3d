"""The device, precision and processes of training: bfloat16 by measurement, and DistributedDataParallel over gloo."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed

from maam.torch import devices
from maam.torch.arrays import read_arrays, unwrap
from maam.weights.match import strip_prefixes

LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0"}


class TestPrecision:
    """The precision "auto" on a CPU follows a measurement, not the list of instructions."""

    @pytest.fixture(autouse=True)
    def _measured_again(self):
        devices.has_fast_bf16.cache_clear()
        yield
        devices.has_fast_bf16.cache_clear()

    @pytest.mark.parametrize(
        ("native", "gain", "expected"),
        [(True, 2.5, "bf16"), (True, 0.55, "fp32"), (True, 1.05, "fp32"), (False, 2.5, "fp32")],
    )
    def test_auto(self, monkeypatch, native, gain, expected):
        monkeypatch.setattr(devices, "has_native_bf16", lambda: native)
        monkeypatch.setattr(devices, "_gain", lambda dtype: gain)
        assert devices.select_precision("cpu") == expected
        for name in ("fp32", "bf16", "fp16"):
            assert devices.select_precision("cpu", name) == name

    def test_gain_is_a_ratio_of_times(self, monkeypatch):
        calls = []

        def convolve(dtype):
            calls.append(dtype)
            for _ in range(200 if dtype == torch.float32 else 20):
                torch.rand(1000).sum()

        monkeypatch.setattr(devices, "_convolve", convolve)
        assert 3 < devices._gain(torch.bfloat16) < 30
        assert set(calls) == {torch.float32, torch.bfloat16}

    def test_measured_once(self, monkeypatch):
        gains = iter([2.0])
        monkeypatch.setattr(devices, "has_native_bf16", lambda: True)
        monkeypatch.setattr(devices, "_gain", lambda dtype: next(gains))
        assert devices.has_fast_bf16()
        assert devices.has_fast_bf16()


@pytest.fixture(scope="module")
def worker(load):
    return load("ddp_worker")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """The gradients at the end of each of two processes."""
    folder = tmp_path_factory.mktemp("ddp")
    command = [sys.executable, str(Path(__file__).with_name("ddp_worker.py"))]
    running = [
        subprocess.Popen([*command, str(rank), "2", str(folder)], env={**os.environ, **LOOPBACK}) for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=120) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
    return [strip_prefixes(torch.load(folder / f"{rank}.pt", weights_only=True)) for rank in range(2)]


@pytest.mark.skipif(not distributed.is_available(), reason="PyTorch without torch.distributed")
class TestProcesses:
    """The reduced gradients are the mean of the gradients of all processes."""

    def test_two_processes(self, two_processes, worker):
        model, (x, labels) = worker.model(), worker.batch()
        halves = [worker.gradients(model, x[part], labels[part]) for part in (slice(4), slice(4, 8))]
        mean = {name: (halves[0][name] + halves[1][name]) / 2 for name in halves[0]}
        torch.testing.assert_close(two_processes[0], mean, rtol=0, atol=1e-6)
        torch.testing.assert_close(two_processes[1], two_processes[0], rtol=0, atol=0)
        assert not torch.allclose(halves[0]["reduce.conv.weight"], mean["reduce.conv.weight"], atol=1e-4)

    def test_one_process(self, worker, tmp_path, monkeypatch):
        for name, value in LOOPBACK.items():
            monkeypatch.setenv(name, value)
        expected = worker.gradients(worker.model(), *worker.batch())
        actual = strip_prefixes(worker.train(0, 1, tmp_path))
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)

    def test_wrapped_model_keeps_spec_and_names(self, worker):
        model = worker.model()
        wrapped = torch.nn.DataParallel(torch.compile(model, backend="eager"))
        assert unwrap(wrapped) is model
        assert list(read_arrays(wrapped)) == list(read_arrays(model))
