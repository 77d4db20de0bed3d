"""The backends behind one interface, small specs, arrays of arbitrary bits, checks and edits of files."""

import functools
import importlib
import itertools
import json

import ml_dtypes
import numpy as np
import pytest

from maam import spec
from maam.backend.convert import convert
from maam.errors import WeightsError
from maam.weights import read_weights
from tests.errors import error_of

BACKENDS = ("reference", "torch", "mindspore")
DTYPES = {name: np.dtype(name) for name in ("float16", "float32", "float64")} | {
    "bfloat16": np.dtype(ml_dtypes.bfloat16)
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
    generator, dtype = np.random.default_rng(seed), DTYPES[dtype]

    def one(p):
        array = np.frombuffer(generator.bytes(dtype.itemsize * int(np.prod(p.shape))), dtype).copy()
        array.view(f"u{dtype.itemsize}")[~np.isfinite(array.astype(np.float64))] = 1
        return (np.abs(array) if p.role is spec.Role.RUNNING_VAR else array).reshape(p.shape)

    with np.errstate(invalid="ignore"):  # signalling NaN
        return {p.name: one(p) for p in node.parameters()}


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


def split(file):
    """Split a file without its checksum, which would hide other faults."""
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    if header.get("__metadata__"):
        header["__metadata__"].pop("checksum", None)
    return header, file[8 + length :]


def join(header, data):
    """Return a file from a header (JSON data or text) and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def edited(file, *path, value):
    """Return the file with another value at a path of its header."""
    header, data = split(file)
    target = header
    for name in path[:-1]:
        target = target[name]
    target[path[-1]] = value
    return join(header, data)


def with_spec(file, document):
    """Return the file with another spec (JSON data or text) in its header."""
    return edited(file, "__metadata__", "spec", value=document if isinstance(document, str) else json.dumps(document))


class Backend:
    """A backend with `load`, `load_weights`, `save_weights`, and the same `build` and `dtype` for all backends."""

    def __init__(self, name):
        self.name, self._module = name, pytest.importorskip(f"maam.{name}", exc_type=ImportError)
        names = ("load", "load_weights", "save_weights")
        self.load, self.load_weights, self.save_weights = (getattr(self._module, name) for name in names)

    def build(self, node, dtype="float32", seed=0):
        """Return a model with weights from `seed` and parameters of `dtype`."""
        if self.name != "reference":
            return self._module.build(node, seed=seed, dtype=self.dtype(dtype))
        model = self._module.build(node, seed=seed)
        model.dtypes = dict.fromkeys(model.dtypes, DTYPES[dtype])
        return model

    def dtype(self, name):
        return DTYPES.get(name, name) if self.name == "reference" else getattr(importlib.import_module(self.name), name)

    def layer(self, **arguments):
        if self.name == "reference":
            return self.build(spec.maam(4, **arguments))
        return self._module.MAAM(4, **arguments)

    def foreign(self):
        if self.name == "reference":
            return object()
        nn = importlib.import_module(f"{self.name}.nn")
        return nn.Linear(1, 1) if self.name == "torch" else nn.Dense(1, 1)


backend_named = functools.cache(Backend)
