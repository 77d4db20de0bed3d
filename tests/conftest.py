"""Settings that hold for all tests; environment variables are set before any framework is imported."""

import os
import sys

os.environ.setdefault("GLOG_v", "4")  # failed compilations are tested on purpose: MindSpore would print pages
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers on two cores
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# MindSpore cannot be imported after onnx in one process otherwise, and tests come in any order.
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")

import pytest
from hypothesis import settings

from maam import errors
from maam.spec import presets

settings.register_profile("ci", max_examples=25, deadline=None, derandomize=True)
settings.register_profile("fuzz", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """A test with the mark `slow_in("mindspore")` is slow where its name contains "mindspore"."""
    for item in items:
        if any(part in item.name for mark in item.iter_markers("slow_in") for part in mark.args):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def clean_state(monkeypatch):
    """Drop the presets that a test registers; name the commands of an installed package, also in a checkout."""
    monkeypatch.setattr(presets, "_FACTORIES", dict(presets._FACTORIES))
    monkeypatch.setattr(errors, "_checkout", lambda: None)


@pytest.fixture(autouse=True)
def mindspore_mode():
    """A test in graph mode leaves it: in all tests after it, MindSpore would compile each cell."""
    before = _mindspore().get_context("mode") if _mindspore() else None
    yield
    if mindspore := _mindspore():
        before = mindspore.PYNATIVE_MODE if before is None else before
        if mindspore.get_context("mode") != before:
            mindspore.set_context(mode=before)


def _mindspore():
    """Return MindSpore if it is imported."""
    module = sys.modules.get("mindspore")
    return module if hasattr(module, "get_context") else None


@pytest.fixture(scope="session")
def one_thread():
    """Run PyTorch in one thread: the order of sums, and so the bits, depends on the number of threads."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
