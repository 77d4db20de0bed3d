"""Runners of a small MAAM with arbitrary weights in each framework."""

import pytest

from tests.frameworks import working_folder  # noqa: F401
from tests.parity.models import EAGER, make_runner


@pytest.fixture(params=EAGER)
def runner(request):
    return make_runner(request.param)


@pytest.fixture(scope="module", params=EAGER)
def shared_runner(request):
    """Return the same runner for all tests of a file, with one trainer for each optimizer.

    A trainer takes seconds to compile in MindSpore. Tests write weights and state before each step.
    """
    runner = make_runner(request.param)
    make, trainers = runner.trainer, {}

    def trainer(optimizer, *rest):
        key = repr(optimizer)  # some settings are dictionaries, which have no hash
        if key not in trainers:
            trainers[key] = make(optimizer, *rest)
        return trainers[key]

    runner.trainer = trainer
    return runner
