"""A small MAAM with weights that hide nothing, and a runner of each framework for it."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from maam import spec
from maam.backend.registry import make_runners

SMALL = spec.preset("maam_digits", channels=8, hidden_channels=4, hidden_features=16)
RUNNERS = {"torch": "torch", "mindspore": "mindspore pynative"}


def scrambled(node, seed=5):
    """Arbitrary arrays: fresh ones (alpha 0, mean 0, variance 1) would hide a lost or permuted one."""
    generator = np.random.default_rng(seed)
    arrays = spec.draw(node.parameters(), seed)
    for p in node.parameters():
        if p.role is not spec.Role.WEIGHT:
            low = 0.5 if p.role in (spec.Role.RUNNING_VAR, spec.Role.NORM_WEIGHT) else -0.5
            arrays[p.name] = generator.uniform(low, low + 1, p.shape).astype(np.float32)
    return arrays


def make_runner(framework, node=SMALL, arrays=None):
    """The eager runner of a framework."""
    pytest.importorskip(framework)
    runners, _ = make_runners(node, scrambled(node) if arrays is None else arrays, [framework])
    return next(runner for runner in runners if runner.name == RUNNERS[framework])


def clone_with(name):
    """Another file of this folder as a module: tests are not packages."""
    path = Path(__file__).with_name(f"{name}.py")
    if name not in sys.modules:
        found = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(found)
        found.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(autouse=True)
def _working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small():
    """The spec."""
    return SMALL


@pytest.fixture
def arrays():
    """Its arrays."""
    return scrambled(SMALL)


@pytest.fixture(params=RUNNERS)
def runner(request):
    """The eager runner of each framework in turn, with a model of its own."""
    return make_runner(request.param)


@pytest.fixture
def faults():
    """The faults that can be planted."""
    return clone_with("faults")
