"""Fixtures of the tests that every framework must pass."""

import pytest

from tests.frameworks import make, small, working_folder, x  # noqa: F401


@pytest.fixture(params=["torch", "mindspore"])
def backend(request):
    with make(request.param) as found:
        yield found


@pytest.fixture(params=["torch", "mindspore graph", "mindspore pynative"])
def runtime(request):
    with make(request.param) as found:
        yield found
