"""Each backend, spec and dtype, and weights files."""

import pytest

from maam.weights import read_weights
from maam.weights.file import FORMAT, VERSION, write_safetensors
from tests.weights.helpers import BACKENDS, DTYPES, NODE, SPECS, arbitrary, backend_named


@pytest.fixture(params=BACKENDS)
def backend(request):
    return backend_named(request.param)


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


@pytest.fixture(params=SPECS)
def node(request):
    return SPECS[request.param]


@pytest.fixture
def arrays():
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
    return write(NODE, arrays)


@pytest.fixture
def values(backend, tmp_path):
    """Return a function that returns the arrays of a model, read from the file that its backend saves."""

    def values(model):
        backend.save_weights(model, tmp_path / "values.safetensors")
        return read_weights(tmp_path / "values.safetensors")[1]

    return values
