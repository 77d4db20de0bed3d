"""The backends behind one interface, small specs, arrays of arbitrary bits, and checks of files."""

import functools
import importlib
import itertools

import ml_dtypes
import numpy as np
import pytest

from maam import spec
from maam.backend.convert import convert
from maam.errors import WeightsError
from maam.weights import read_weights
from tests.errors import error_of

DTYPES = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}
SMALL = {"image_size": 8, "channels": 4, "hidden_features": 6, "num_agents": 2}
NODE = spec.maam_classifier(3, 1, **SMALL, fusion="dynamic", depthwise=True)
SPECS = {
    "classifier": spec.maam_classifier(3, 1, **SMALL, kernel_sizes=(1, 3), dropout=0.1),
    "dynamic": NODE,
    "rnn": spec.rnn(3, 1, image_size=4),
    "layer": spec.maam(4),
}


def arbitrary(node, dtype="float32", seed=0):
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


def mixed(node):
    whole = {dtype: arbitrary(node, dtype) for dtype in DTYPES}
    return {p.name: whole[dtype][p.name] for p, dtype in zip(node.parameters(), itertools.cycle(DTYPES), strict=False)}


def bits(arrays):
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}


def same(path, arrays, node=None):
    """Return whether a weights file holds these arrays (names, dtypes, shapes, bits) and this spec."""
    own, found = read_weights(path)
    assert bits(found) == bits(arrays)
    return node is None or own == node


def converts_to(path, arrays, node=NODE):
    """Return whether the conversion of a file with the spec `node` gives these arrays."""
    assert convert(path, path.parent / "out.safetensors", node) == (node or NODE)
    return same(path.parent / "out.safetensors", arrays, node or NODE)


def refused(src, dst=None, node=None):
    """Return the message of the error that a conversion raises."""
    message = error_of(WeightsError, convert, src, dst or src.parent / "out.safetensors", node)
    assert len(message) < 800 or "missing: " in message
    return message


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
        if self.name == "reference":
            return DTYPES[name] if name in DTYPES else np.dtype(name)
        return getattr(importlib.import_module(self.name), name)

    def layer(self, **arguments):
        if self.name == "reference":
            return self.build(spec.maam(4, **arguments))
        return importlib.import_module(f"maam.{self.name}").MAAM(4, **arguments)

    def foreign(self):
        if self.name == "reference":
            return object()
        kind = {"torch": "Linear", "mindspore": "Dense"}[self.name]
        return getattr(importlib.import_module(f"{self.name}.nn"), kind)(1, 1)


backend_named = functools.cache(Backend)
