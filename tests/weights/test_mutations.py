"""Malformed files: every backend refuses them with the same short message and little memory."""

import contextlib
import json
import random
import tracemalloc

import numpy as np
import pytest

import maam.reference
from maam import spec
from maam.errors import WeightsError
from tests.errors import error_of
from tests.weights import malformed
from tests.weights.helpers import SPECS, backend_named

MODEL = SPECS["classifier"]
LARGEST = 20 * 2**20
"""The largest memory in bytes for reading a small malformed file; deeply nested JSON needs the most."""


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "weights.safetensors"
    maam.reference.save_weights(maam.reference.build(MODEL, seed=0), path)
    return list(malformed.malformed(path.read_bytes(), seed=0))


@contextlib.contextmanager
def little_memory():
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < LARGEST
    finally:
        tracemalloc.stop()


def _refusal(load, path):
    """Return the message of the error, or None if the file loads."""
    try:
        model = load(path)
    except WeightsError as error:
        return str(error)
    for p in model.spec.parameters():
        assert model.arrays[p.name].shape == p.shape
        assert np.isfinite(model.arrays[p.name]).all()
    return None


def test_malformed_files_load_completely_or_raise_one_line_errors_in_every_backend(cases, tmp_path):
    path = tmp_path / "weights.safetensors"
    refused = []
    for case, content in cases:
        path.write_bytes(content)
        with little_memory():
            message = _refusal(maam.reference.load, path)
        if message is not None:
            refused.append((content, message))
            assert message.startswith(f"{path}: "), case
            assert message.isprintable(), case
            assert len(message) < 800 or "does not fit the model" in message, case
    assert len(refused) >= 200
    for content, message in random.Random(1).sample(refused, 20):
        path.write_bytes(content)
        for backend in (backend_named("torch"), backend_named("mindspore")):
            assert error_of(WeightsError, backend.load, path) == message


def test_huge_specs_are_compared_with_the_file_before_memory_is_allocated(backend, tmp_path):
    path = tmp_path / "weights.safetensors"
    small = spec.Sequential(children={"fc": spec.Linear(in_features=2, out_features=2, bias=False)})
    maam.reference.save_weights(maam.reference.build(small, seed=0), path)
    document = json.loads(small.to_json())
    document["children"]["fc"] |= {"in_features": 10**6, "out_features": 10**6}
    whole = path.read_bytes()
    renamed = json.loads(json.dumps(document).replace('"fc"', '"other"'))
    shape = r"wrong shape: fc\.weight \(2, 2\) instead of \(1000000, 1000000\)$"
    for huge, message in ((renamed, r"missing: other\.weight"), (document, shape)):
        path.write_bytes(malformed.with_spec(whole, huge))
        with little_memory(), pytest.raises(WeightsError, match=message):
            backend.load(path)
