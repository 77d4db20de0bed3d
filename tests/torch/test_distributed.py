"""DistributedDataParallel over gloo: the reduced gradients are the mean of the processes' own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed

from maam.torch.arrays import read_arrays, unwrap
from maam.weights.match import strip_prefixes

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="PyTorch without torch.distributed")
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0"}


@pytest.fixture(scope="module")
def worker(load):
    return load("ddp_worker")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """The gradients that each of two processes ends with."""
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


def test_two_processes(two_processes, worker):
    model, (x, labels) = worker.model(), worker.batch()
    halves = [worker.gradients(model, x[part], labels[part]) for part in (slice(4), slice(4, 8))]
    mean = {name: (halves[0][name] + halves[1][name]) / 2 for name in halves[0]}
    torch.testing.assert_close(two_processes[0], mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(two_processes[1], two_processes[0], rtol=0, atol=0)
    assert not torch.allclose(halves[0]["reduce.conv.weight"], mean["reduce.conv.weight"], atol=1e-4)


def test_one_process(worker, tmp_path, monkeypatch):
    for name, value in LOOPBACK.items():
        monkeypatch.setenv(name, value)
    expected = worker.gradients(worker.model(), *worker.batch())
    actual = strip_prefixes(worker.train(0, 1, tmp_path))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


def test_wrapped_model_keeps_spec_and_names(worker):
    model = worker.model()
    wrapped = torch.nn.DataParallel(torch.compile(model, backend="eager"))
    assert unwrap(wrapped) is model
    assert list(read_arrays(wrapped)) == list(read_arrays(model))
