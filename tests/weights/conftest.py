"""The backends behind one interface, small specs, and arrays of arbitrary bits."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from maam import spec
from maam.weights.file import FORMAT, VERSION, write_safetensors
from tests.weights import helpers
from tests.weights.helpers import DTYPES

BACKENDS = ("reference", "torch", "mindspore")


class Backend:
    """A backend with `load`, `load_weights`, `save_weights`, and the same `build` and `dtype` for all backends."""

    def __init__(self, name):
        module = pytest.importorskip(f"maam.{name}", exc_type=ImportError)
        self.name = name
        self.load, self.load_weights, self.save_weights = module.load, module.load_weights, module.save_weights
        self._build = module.build

    def build(self, node, dtype="float32", seed=0):
        """Return a model with weights from `seed` and parameters of `dtype`."""
        if self.name != "reference":
            return self._build(node, seed=seed, dtype=self.dtype(dtype))
        model = self._build(node, seed=seed)
        model.dtypes = dict.fromkeys(model.dtypes, DTYPES[dtype])
        return model

    def dtype(self, name):
        """Return the backend's object for a dtype."""
        if self.name == "reference":
            return DTYPES[name] if name in DTYPES else np.dtype(name)
        return getattr(importlib.import_module(self.name), name)

    def layer(self, **arguments):
        """Return a MAAM layer of 4 channels."""
        if self.name == "reference":
            return self.build(spec.maam(4, **arguments))
        return importlib.import_module(f"maam.{self.name}").MAAM(4, **arguments)


SPECS = {
    "classifier": spec.maam_classifier(
        3, 1, image_size=8, channels=4, hidden_features=6, num_agents=2, kernel_sizes=(1, 3), dropout=0.1
    ),
    "dynamic": spec.maam_classifier(
        3, 1, image_size=8, channels=4, hidden_features=6, num_agents=2, fusion="dynamic", depthwise=True
    ),
    "rnn": spec.rnn(3, 1, image_size=4),
    "layer": spec.maam(4),
}


class _Backends(dict):
    def __missing__(self, name):
        self[name] = Backend(name)
        return self[name]


@pytest.fixture(scope="session")
def backends():
    """Return the backends by name; a missing framework skips the test."""
    return _Backends()


@pytest.fixture(params=BACKENDS)
def backend(request, backends):
    """Return each backend."""
    return backends[request.param]


@pytest.fixture(params=DTYPES)
def dtype(request):
    """Return the name of each dtype."""
    return request.param


@pytest.fixture(scope="session")
def dtypes():
    """Return the NumPy dtypes by name."""
    return DTYPES


@pytest.fixture(params=SPECS)
def node(request):
    """Return each spec."""
    return SPECS[request.param]


@pytest.fixture(name="arbitrary", scope="session")
def _arbitrary():
    return helpers.arbitrary


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a weights file and returns its path."""

    def write(node, arrays, name="weights.safetensors"):
        header = {"format": FORMAT, "format_version": VERSION, "spec": node.to_json()}
        write_safetensors(tmp_path / name, arrays, header)  # write_weights would check the arrays
        return tmp_path / name

    return write


@pytest.fixture(name="same", scope="session")
def _same():
    return helpers.same


@pytest.fixture(name="refused", scope="session")
def _refused():
    return helpers.refused
