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
from tests.spec import mutations
from tests.weights.helpers import SPECS, backend_named, edited, join, split, with_spec

TEXTS = (
    "", "{", "null", "[]", "3", '"x"', "{}", "NaN", "\x00", "[" * 100_000, '{"kind":' * 5000, "9" * 5000,
    '{"kind": "identity", "kind": "flatten"}', '{"kind": "linear", "in_features": ' + "9" * 5000 + "}",
    '{"kind": "nope"}', '{"kind": "model", "name": "\\ud800", "input_shape": [1, 1, 1], "children": {}}',
    '{"kind": "sequential", "children": {"a\\nb": {"kind": "flatten"}}}', '{"kind": ["conv2d"]}',
    '{"kind": "conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": 1, "line\\nbreak": 1}',
)  # fmt: skip
VALUES = (None, "", "2", "x" * 10_000, "a\nb", 1, {})
DTYPES = ("F16", "BF16", "F32", "F64", "I64", "BOOL", "U8", "F8_E4M3", "F128", "", 3, None)
SHAPES = ([], [-1], [10**12], [2**62, 2], [2**64], [1] * 70, [0, 2**64 - 1], [1.5], "x", [[2]], None)
EMPTY = ([0], [0, 2**31], [0, 2**62], [0, 2**63], [2**64 - 1, 0], [1] * 30 + [0] * 10, [0] * 70)
OFFSETS = ([0, 0], [0, 10**15], [8, 4], [-1, 4], [0], [], [0, 2**64], "x", None)
ARRAY = "agents.alpha"
EDITS = {  # values at paths of the header
    ("__metadata__",): (None, [], "x", 3),
    ("__metadata__", "format"): VALUES,
    ("__metadata__", "format_version"): VALUES,
    ("__metadata__", "spec"): (*VALUES, *TEXTS),
    (ARRAY, "dtype"): DTYPES,
    (ARRAY, "shape"): (*SHAPES, *EMPTY),
    (ARRAY, "data_offsets"): OFFSETS,
}
RENAMED = ("", "x" * 3000, "a\nb", "module.agents.alpha", "é", "weight", "\x00", "__metadata__", "agents.beta")
MODEL = SPECS["classifier"]
LARGEST = 20 * 2**20
"""The largest memory in bytes for reading a small malformed file; deeply nested JSON needs the most."""


def malformed(file, generator):
    """Yield about 500 pairs of a description and a mutated file."""
    file = join(*split(file))
    yield from with_other_bytes(file, generator)
    for path, values in EDITS.items():
        yield from ((f"{path} {str(value)[:30]!r}", edited(file, *path, value=value)) for value in values)
    yield from with_other_headers(file, generator)
    yield from with_other_specs(file, generator)


def with_other_bytes(file, generator):
    end = 8 + int.from_bytes(file[:8], "little")
    changes = [(position, file[position] ^ 1 << bit) for position in range(8) for bit in (0, 3, 7)]
    changes += [(generator.randrange(8, end), generator.randrange(256)) for _ in range(120)]
    for position, byte in changes:
        yield f"byte {position} is {byte}", file[:position] + bytes([byte]) + file[position + 1 :]
    for length in sorted({*range(0, 12), *generator.sample(range(len(file)), 40), len(file) - 1}):
        yield f"cut after {length} bytes", file[:length]
    yield "a byte more", file + b"\0"


def with_other_headers(file, generator):
    header, data = split(file)
    names = sorted(set(header) - {"__metadata__"})
    for text in TEXTS:
        yield f"header {text[:30]!r}", join(text.encode(), data)
    for key in header["__metadata__"]:
        others = {name: text for name, text in header["__metadata__"].items() if name != key}
        yield f"without {key}", join(header | {"__metadata__": others}, data)
    for shape in EMPTY:
        empty = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data)]}
        yield f"an empty array {shape[:3]}", join(header | {"empty": empty}, data)
    for new in RENAMED:
        name = generator.choice(names)
        others = {key: entry for key, entry in header.items() if key != name}
        yield f"{name} renamed {new[:20]!r}", join(others | {new: header[name]}, data)
    text = json.dumps(header)[:-1] + f', "{names[0]}": {json.dumps(header[names[1]])}}}'
    yield f"{names[0]} twice", join(text.encode(), data)
    for _ in range(8):
        one, other = generator.sample(names, 2)
        first, second = header[one], header[other]
        shapes = first | {"shape": second["shape"]}, second | {"shape": first["shape"]}
        for pair in ((second, first), (second, second), shapes):
            yield f"{one} and {other} exchanged", join(header | dict(zip((one, other), pair, strict=True)), data)
        yield f"without {one}", join({key: entry for key, entry in header.items() if key != one}, data)


def with_other_specs(file, generator):
    text = split(file)[0]["__metadata__"]["spec"]
    for _ in range(150):
        mutate = generator.choice(mutations.EDITS)
        yield f"spec: {mutate.__name__}", with_spec(file, mutate(generator, text))
    million = {"kind": "linear", "in_features": 10**6, "out_features": 10**6}
    yield "10**12 parameters", with_spec(file, million)
    many = {"kind": "sequential", "children": {f"a{i}": million for i in range(100)}}
    yield "10**14 parameters", with_spec(file, many)
    nested = {"kind": "flatten"}
    for _ in range(200):
        nested = {"kind": "sequential", "children": {"a": nested}}
    yield "200 levels", with_spec(file, nested)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "weights.safetensors"
    maam.reference.save_weights(maam.reference.build(MODEL, seed=0), path)
    return list(malformed(path.read_bytes(), random.Random(0)))


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
        path.write_bytes(with_spec(whole, huge))
        with little_memory(), pytest.raises(WeightsError, match=message):
            backend.load(path)
