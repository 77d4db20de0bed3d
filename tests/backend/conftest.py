"""Fixtures of the tests that every framework must pass."""

import pytest

from tests.frameworks import SMALL, make, make_maps


@pytest.fixture(params=["torch", "mindspore"])
def backend(request):
    """The helper of a framework; MindSpore in PyNative mode."""
    with make(request.param) as found:
        yield found


@pytest.fixture(params=["torch", "mindspore graph", "mindspore pynative"])
def runtime(request):
    """The helper of a framework in each mode in which it runs."""
    with make(request.param) as found:
        yield found


@pytest.fixture(autouse=True)
def _working_folder(tmp_path, monkeypatch):
    """Run in an empty folder: MindSpore leaves `rank_0` after a failed compilation."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(name="x")
def _x():
    return make_maps()


@pytest.fixture(name="small")
def _small():
    return SMALL
