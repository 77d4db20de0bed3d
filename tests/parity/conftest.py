"""A small MAAM with arbitrary weights, and runners for it in each framework."""

import pytest

from tests.parity.models import EAGER, SMALL, make_runner, scrambled


@pytest.fixture(autouse=True)
def _working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def small():
    """Return the spec."""
    return SMALL


@pytest.fixture(scope="session")
def arrays():
    """Return arbitrary weights; tests do not change them."""
    return scrambled(SMALL)


@pytest.fixture(params=EAGER)
def runner(request):
    """Return the eager runner of each framework in turn, with a model of its own."""
    return make_runner(request.param)


@pytest.fixture(scope="module", params=EAGER)
def shared_runner(request):
    """Return the same runner for all tests of a file, with one trainer for each optimizer.

    A trainer takes seconds to compile in MindSpore. Tests write weights and state before each step.
    """
    runner = make_runner(request.param)
    make, trainers = runner.trainer, {}

    def trainer(optimizer, *rest):
        if optimizer not in trainers:
            trainers[optimizer] = make(optimizer, *rest)
        return trainers[optimizer]

    runner.trainer = trainer
    return runner
