"""Malformed weights files: seeded mutations of a valid one."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

from tests.spec import mutations

NAMES = ("", "x" * 3000, "a\nb", "agents.alpha", "module.agents.alpha", "é", "weight", "\x00", "__metadata__")
DTYPES = ("F16", "BF16", "F32", "F64", "I64", "BOOL", "U8", "F8_E4M3", "F128", "", 3)
SHAPES = ([], [0], [-1], [10**12], [2**62, 2], [2**64], [1] * 70, [0, 2**63], [0, 2**64 - 1], [1.5], "x", [[2]])
OFFSETS = ([0, 0], [0, 10**15], [8, 4], [-1, 4], [0], [], [0, 2**64], "x")
TEXTS = (
    "", "{", "null", "[]", "3", '"x"', "{}", "NaN", "\x00", "[" * 100_000, '{"kind":' * 5000, "9" * 5000,
    '{"kind": "identity", "kind": "flatten"}', '{"kind": "linear", "in_features": ' + "9" * 5000 + "}",
    '{"kind": "nope"}', '{"kind": "model", "name": "\\ud800", "input_shape": [1, 1, 1], "children": {}}',
    '{"kind": "sequential", "children": {"a\\nb": {"kind": "flatten"}}}', '{"kind": ["conv2d"]}',
    '{"kind": "conv2d", "in_channels": 1, "out_channels": 1, "kernel_size": 1, "line\\nbreak": 1}',
)  # fmt: skip

Case = tuple[str, bytes]


def split(file: bytes) -> tuple[dict[str, Any], bytes]:
    """Split a file without its checksum, which would hide other faults."""
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    if header.get("__metadata__"):
        header["__metadata__"].pop("checksum", None)
    return header, file[8 + length :]


def join(header: Any, data: bytes) -> bytes:
    """Return a file from a header (JSON data or text) and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def edited(file: bytes, *path: str, value: Any) -> bytes:
    """Return the file with another value at a path of its header."""
    header, data = split(file)
    target = header
    for name in path[:-1]:
        target = target[name]
    target[path[-1]] = value
    return join(header, data)


def with_spec(file: bytes, spec: Any) -> bytes:
    """Return the file with another spec (JSON data or text) in its header."""
    return edited(file, "__metadata__", "spec", value=spec if isinstance(spec, str) else json.dumps(spec))


def malformed(file: bytes, seed: int) -> Iterator[Case]:
    """Yield about 500 pairs of a description and a mutated file."""
    file = join(*split(file))
    generator = random.Random(seed)
    for make in (_bytes, _headers, _tensors, _specs):
        yield from make(file, generator)


def _bytes(file: bytes, generator: random.Random) -> Iterator[Case]:
    for position in range(8):
        for bit in (0, 3, 7):
            flipped = bytearray(file)
            flipped[position] ^= 1 << bit
            yield f"bit {bit} of byte {position} of the header's length", bytes(flipped)
    end = 8 + int.from_bytes(file[:8], "little")
    for _ in range(120):
        position = generator.randrange(8, end)
        flipped = bytearray(file)
        flipped[position] = generator.randrange(256)
        yield f"byte {position} of the header", bytes(flipped)
    for length in sorted({*range(0, 12), *generator.sample(range(len(file)), 40), len(file) - 1}):
        yield f"cut after {length} bytes", file[:length]
    yield "a byte more", file + b"\0"


def _headers(file: bytes, generator: random.Random) -> Iterator[Case]:
    for text in TEXTS:
        yield f"spec {text[:30]!r}", with_spec(file, text)
        yield f"header {text[:30]!r}", join(text.encode(), split(file)[1])
    metadata = split(file)[0]["__metadata__"]
    for key in ("format", "format_version", "spec"):
        for value in (None, "", "2", "x" * 10_000, "a\nb", 1, {}):
            yield f"{key} {str(value)[:20]!r}", edited(file, "__metadata__", key, value=value)
        others = {name: text for name, text in metadata.items() if name != key}
        yield f"without {key}", edited(file, "__metadata__", value=others)
    for value in (None, [], "x", 3):
        yield f"metadata {value!r}", edited(file, "__metadata__", value=value)


def _tensors(file: bytes, generator: random.Random) -> Iterator[Case]:
    names = sorted(set(split(file)[0]) - {"__metadata__"})
    for field, values in (("dtype", DTYPES), ("shape", SHAPES), ("data_offsets", OFFSETS)):
        for value in (*values, None):
            name = generator.choice(names)
            yield f"{name} with {field} {str(value)[:30]}", edited(file, name, field, value=value)
    for new in NAMES:
        header, data = split(file)
        name = generator.choice(names)
        header[new] = header.pop(name)
        yield f"{name} renamed {new[:20]!r}", join(header, data)
    header, data = split(file)
    for shape in ([0], [0, 2**31], [0, 2**62], [0, 2**63], [2**64 - 1, 0], [1] * 30 + [0] * 10, [0] * 70):
        empty = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data)]}
        yield f"an empty array {shape[:3]}", edited(file, "empty", value=empty)
    text = json.dumps(header)[:-1] + f', "{names[0]}": {json.dumps(header[names[1]])}}}'
    yield f"{names[0]} twice", join(text.encode(), data)
    for _ in range(25):
        header, data = split(file)
        one, other = generator.sample(names, 2)
        how = generator.choice(("swapped", "shared", "gone", "shapes swapped"))
        if how == "swapped":
            header[one], header[other] = header[other], header[one]
        elif how == "shared":
            header[one] = header[other]
        elif how == "gone":
            del header[one]
        else:
            header[one]["shape"], header[other]["shape"] = header[other]["shape"], header[one]["shape"]
        yield f"{one} and {other}: {how}", join(header, data)


def _specs(file: bytes, generator: random.Random) -> Iterator[Case]:
    text = split(file)[0]["__metadata__"]["spec"]
    for _ in range(150):
        mutate = generator.choice(mutations.EDITS)
        yield f"spec: {mutate.__name__}", with_spec(file, mutate(generator, text))
    million = {"kind": "linear", "in_features": 10**6, "out_features": 10**6}
    yield "10**12 parameters", with_spec(file, million)
    many = {"kind": "sequential", "children": {f"a{i}": million for i in range(100)}}
    yield "10**14 parameters", with_spec(file, many)
    nested: dict[str, Any] = {"kind": "flatten"}
    for _ in range(200):
        nested = {"kind": "sequential", "children": {"a": nested}}
    yield "200 levels", with_spec(file, nested)
