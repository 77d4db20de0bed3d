"""Fixtures of the tests that every framework must pass."""

import numpy as np
import pytest

from maam import spec
from tests.frameworks import make

SMALL = {"channels": 8, "hidden_features": 16, "in_channels": 1, "image_size": 8, "num_classes": 3}


@pytest.fixture(params=["torch", "mindspore"])
def backend(request, in_mode):
    """The helper of a framework; MindSpore in PyNative mode."""
    return in_mode(make(request.param))


@pytest.fixture(params=["torch", "mindspore graph", "mindspore pynative"])
def runtime(request, in_mode):
    """The helper of a framework in each mode in which it runs."""
    return in_mode(make(request.param))


@pytest.fixture
def in_mode():
    """Select the mode of a helper for this test; MindSpore has one for the whole process."""
    before = []

    def enter(found):
        if found.name == "mindspore":
            before.append((found.ms, found.ms.get_context("mode")))
        found.enter()
        return found

    yield enter
    for ms, mode in before:
        ms.set_context(mode=mode)


@pytest.fixture(autouse=True)
def _working_folder(tmp_path, monkeypatch):
    """Run in an empty folder: MindSpore leaves `rank_0` after a failed compilation."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def x():
    """A batch of maps with 4 channels."""
    return np.random.default_rng(1).normal(size=(2, 4, 8, 8)).astype(np.float32)


@pytest.fixture(scope="session")
def small():
    """The spec of a classifier of 8x8 images that compiles in a second."""
    return spec.maam_classifier(**SMALL)
