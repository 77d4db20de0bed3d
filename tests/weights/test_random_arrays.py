import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from maam import spec
from maam.weights import read_weights, write_weights


@st.composite
def _layers(draw):
    """A layer of random sizes, with arrays of random finite bits in a random dtype for each."""
    sizes = st.integers(1, 4)
    node = draw(
        st.one_of(
            st.builds(spec.Linear, in_features=sizes, out_features=sizes, bias=st.booleans()),
            st.builds(spec.Conv2d, in_channels=sizes, out_channels=sizes, kernel_size=sizes, bias=st.booleans()),
            st.builds(spec.RNN, input_size=sizes, hidden_size=sizes),
            st.builds(spec.BatchNorm2d, num_features=sizes),
        )
    )
    finite = {"allow_nan": False, "allow_infinity": False}
    dtype = arrays_of.floating_dtypes(endianness="=", sizes=(16, 32, 64))
    arrays = {p.name: draw(arrays_of.arrays(draw(dtype), p.shape, elements=finite)) for p in node.parameters()}
    return node, {name: np.abs(array) if name.endswith("running_var") else array for name, array in arrays.items()}


@given(_layers())
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read(layer):
    node, arrays = layer
    with tempfile.TemporaryDirectory() as folder:
        write_weights(Path(folder) / "weights.safetensors", node, arrays)
        found, read = read_weights(Path(folder) / "weights.safetensors")
    assert found == node
    assert {name: (a.dtype, a.shape, a.tobytes()) for name, a in read.items()} == {
        name: (a.dtype, np.shape(a), a.tobytes()) for name, a in arrays.items()
    }
