"""The same random weights in every order of the tests."""

import pytest


@pytest.fixture(autouse=True)
def seeded():
    pytest.importorskip("torch").manual_seed(0)
    pytest.importorskip("mindspore").set_seed(1)
