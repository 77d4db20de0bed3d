"""The three rooms behind one face, small specs, and arrays of arbitrary bits."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from maam import spec
from maam.backend.convert import convert
from maam.errors import WeightsError
from maam.weights import read_weights
from maam.weights.file import FORMAT, VERSION, write_safetensors

ROOMS = ("reference", "torch", "mindspore")
DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}


class Room:
    """A room: its `load`, `load_weights` and `save_weights`, and `build` and `dtype` alike in all three."""

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
        """The room's own object for a dtype."""
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


def arbitrary(node, dtype, seed=0):
    """Arrays for `node` of random bits: all that is finite can come, -0 and denormal numbers too.

    But no variance is negative.
    """
    generator = np.random.default_rng(seed)
    dtype = DTYPES[dtype]

    def one(shape):
        array = np.frombuffer(generator.bytes(dtype.itemsize * int(np.prod(shape))), dtype).copy()
        array.view(f"u{dtype.itemsize}")[~np.isfinite(array.astype(np.float64))] = 1
        return array.reshape(shape)

    with np.errstate(invalid="ignore"):  # signalling NaN
        arrays = {p.name: one(p.shape) for p in node.parameters()}
    for p in node.parameters():
        if p.role is spec.Role.RUNNING_VAR:
            arrays[p.name] = np.abs(arrays[p.name])
    return arrays


class _Rooms(dict):
    def __missing__(self, name):
        self[name] = Room(name)
        return self[name]


@pytest.fixture(scope="session")
def rooms():
    """Rooms by name; asking for one whose framework is not installed skips the test."""
    return _Rooms()


@pytest.fixture(params=ROOMS)
def room(request, rooms):
    """Each room in turn."""
    return rooms[request.param]


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
    return arbitrary


@pytest.fixture
def write(tmp_path):
    """Write arrays and a spec to a weights file, and return its path."""

    def write(node, arrays, name="weights.safetensors"):
        header = {"format": FORMAT, "format_version": VERSION, "spec": node.to_json()}
        write_safetensors(tmp_path / name, arrays, header)  # not write_weights, which refuses what does not fit
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def same():
    """Whether a weights file holds exactly these arrays: names, dtypes, shapes and bits."""

    def same(path, arrays):
        _, found = read_weights(path)
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype, name
            assert found[name].shape == array.shape, name
            assert found[name].tobytes() == array.tobytes(), name
        return True

    return same


@pytest.fixture(scope="session")
def refused():
    """Call `convert(src, dst, spec)`, which must refuse, and return the one line that it says."""

    def refused(src, dst, node=None):
        with pytest.raises(WeightsError) as caught:
            convert(src, dst, node)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 800 or "missing: " in str(caught.value)
        return str(caught.value)

    return refused


@pytest.fixture(scope="session")
def malformed():
    """The module `malformed` of this folder (importlib mode puts none on sys.path)."""
    path = Path(__file__).with_name("malformed.py")
    module_spec = importlib.util.spec_from_file_location("weights_tests_malformed", path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module
