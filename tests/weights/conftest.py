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
    """A backend: its `load`, `load_weights` and `save_weights`, and `build` and `dtype` alike in all three."""

    def __init__(self, name):
        module = pytest.importorskip(f"maam.{name}", exc_type=ImportError)
        self.name = name
        self.load, self.load_weights, self.save_weights = module.load, module.load_weights, module.save_weights
        self._build = module.build

    def build(self, node, dtype="float32", seed=0):
        """A model with weights from `seed`, its parameters of `dtype`."""
        if self.name != "reference":
            return self._build(node, seed=seed, dtype=self.dtype(dtype))
        model = self._build(node, seed=seed)
        model.dtypes = dict.fromkeys(model.dtypes, DTYPES[dtype])
        return model

    def dtype(self, name):
        """The backend's own object for a dtype."""
        if self.name == "reference":
            return DTYPES[name] if name in DTYPES else np.dtype(name)
        return getattr(importlib.import_module(self.name), name)

    def layer(self, **arguments):
        """The drop-in layer of 4 channels."""
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
    """Rooms by name; asking for one whose framework is not installed skips the test."""
    return _Backends()


@pytest.fixture(params=BACKENDS)
def backend(request, backends):
    """Each backend in turn."""
    return backends[request.param]


@pytest.fixture(params=DTYPES)
def dtype(request):
    """The name of each dtype in turn."""
    return request.param


@pytest.fixture(scope="session")
def dtypes():
    """NumPy's dtypes by name."""
    return DTYPES


@pytest.fixture(params=SPECS)
def node(request):
    """Each spec in turn."""
    return SPECS[request.param]


@pytest.fixture(name="arbitrary", scope="session")
def _arbitrary():
    return helpers.arbitrary


@pytest.fixture
def write(tmp_path):
    """Write arrays and a spec to a weights file, and return its path."""

    def write(node, arrays, name="weights.safetensors"):
        header = {"format": FORMAT, "format_version": VERSION, "spec": node.to_json()}
        write_safetensors(tmp_path / name, arrays, header)  # not write_weights, which refuses what does not fit
        return tmp_path / name

    return write


@pytest.fixture(name="same", scope="session")
def _same():
    return helpers.same


@pytest.fixture(name="refused", scope="session")
def _refused():
    return helpers.refused
