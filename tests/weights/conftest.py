"""The backends behind one interface, and weights files."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from maam import spec
from maam.weights import read_weights
from maam.weights.file import FORMAT, VERSION, write_safetensors
from tests.weights.helpers import DTYPES, NODE, SPECS, arbitrary

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

    def foreign(self):
        """Return a model that maam did not build."""
        classes = {"torch": "Linear", "mindspore": "Dense"}
        if self.name not in classes:
            return object()
        return getattr(importlib.import_module(f"{self.name}.nn"), classes[self.name])(1, 1)


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


@pytest.fixture(params=SPECS)
def node(request):
    """Return each spec."""
    return SPECS[request.param]


@pytest.fixture
def arrays():
    """Return arbitrary arrays of NODE."""
    return arbitrary(NODE)


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a weights file and returns its path."""

    def write(node, arrays, name="weights.safetensors"):
        header = {"format": FORMAT, "format_version": VERSION, "spec": node.to_json()}
        write_safetensors(tmp_path / name, arrays, header)  # write_weights would check the arrays
        return tmp_path / name

    return write


@pytest.fixture
def weights(write, arrays):
    """Return the path of a weights file of NODE."""
    return write(NODE, arrays)


@pytest.fixture
def values(backend, tmp_path):
    """Return a function that returns the arrays of a model, read from the file that its backend saves."""

    def values(model):
        backend.save_weights(model, tmp_path / "values.safetensors")
        return read_weights(tmp_path / "values.safetensors")[1]

    return values
