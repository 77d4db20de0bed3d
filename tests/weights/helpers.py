"""Arrays of arbitrary bits, and checks of weights files and of refused conversions."""

import ml_dtypes
import numpy as np
import pytest

from maam import spec
from maam.backend.convert import convert
from maam.errors import WeightsError
from maam.weights import read_weights

DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}


def arbitrary(node, dtype, seed=0):
    """Return arrays of random bits: any finite value, including -0 and denormal numbers; variances are positive."""
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


def same(path, arrays, node=None):
    """Return True after checking that a weights file holds these arrays (names, dtypes, shapes, bits) and this spec."""
    own, found = read_weights(path)
    assert node is None or own == node
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name
    return True


def refused(src, dst, node=None):
    """Return the message of the error that a conversion raises."""
    with pytest.raises(WeightsError) as caught:
        convert(src, dst, node)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 800 or "missing: " in str(caught.value)
    return str(caught.value)
