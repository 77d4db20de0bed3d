"""Pairs of models to port."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("maam.mindspore")

sys.modules.setdefault("handwritten_pair", importlib.util.module_from_spec(
    SPEC := importlib.util.spec_from_file_location("handwritten_pair", Path(__file__).with_name("handwritten.py"))
))  # fmt: skip
SPEC.loader.exec_module(sys.modules["handwritten_pair"])


@pytest.fixture
def pair():
    """Make both small networks; arguments plant faults."""
    return sys.modules["handwritten_pair"].pair
