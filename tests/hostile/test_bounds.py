"""Documents that are nested, large or endless are refused with one line, in little time and memory.

MindSpore raises Python's limit on recursion so far that careless readers overflow the stack, so the cases also run
after its import.
"""

import gzip
import importlib
import json
import os
import subprocess
import sys
import time
import zipfile
from functools import reduce
from pathlib import Path

import pytest

from maam import spec, training, weights
from maam._messages import printable
from maam.backend.convert import convert
from maam.errors import MaamError
from maam.porting.inputs import InputText, load_inputs
from maam.spec import parse_document, parse_json
from maam.training.checkpoint import read_checkpoint
from maam.training.recipe_files import parse_override
from maam.training.run_dir import Log, RunFolder
from maam.weights import read_weights
from maam.weights.file import CHECKPOINT_FORMAT
from tests.hostile.bombs import nested_json

DEPTHS = (300, 1000, 100_000)
SPEC = spec.preset("maam_digits")
SECONDS, MEGABYTES = 2.0, 500
PIPE = object()
"""The content of a file that is a pipe."""


def write(path, content):
    path.unlink(missing_ok=True)
    if content is PIPE:
        os.mkfifo(path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def deep(depth, start="[", end="]"):
    return nested_json(depth, start, end, "1")


def nested_document(depth):
    return reduce(lambda inner, _: {"kind": "sequential", "children": {"a": inner}}, range(depth), {"kind": "flatten"})


def wide_document(count, name="layer"):
    return {"kind": "sequential", "children": {f"{name}{index}": {"kind": "flatten"} for index in range(count)}}


def safetensors_file(header):
    return len(header).to_bytes(8, "little") + header


def weights_file(names=(), **metadata):
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = {"__metadata__": {"format": "maam", "format_version": "1", **metadata}}
    return safetensors_file(json.dumps({**dict.fromkeys(names, empty), **header}).encode())


def checkpoint(step=1, **metadata):
    header = {"format": CHECKPOINT_FORMAT, "spec": SPEC.to_json(), "recipe": '{"model": "maam_digits"}'}
    header["progress"] = json.dumps({"step": step, "loss_scale": None, "best_accuracy": 0})
    return weights_file(**{**header, **metadata})


def overridden(text):
    path, value = parse_override(text)
    return training.read_recipe("digits").replaced({path: value})


def cases():
    """Yield a name, a function that must refuse its argument, and the argument, or a file and its content."""
    for depth in DEPTHS:
        texts = {"layers": nested_json(depth), "lists": deep(depth), "objects": deep(depth, '{"a":', "}")}
        for kind, text in (texts | {"open": "[" * depth}).items():
            yield f"spec {kind} {depth}", parse_json, text
            yield f"header {kind} {depth}", read_weights, "a.safetensors", weights_file(spec=text)
        yield f"document {depth}", parse_document, nested_document(depth)
        yield f"safetensors {depth}", read_weights, "b.safetensors", safetensors_file(deep(depth).encode())
        for field in ("recipe", "progress"):
            yield f"{field} {depth}", read_checkpoint, "c.safetensors", checkpoint(**{field: deep(depth)})
        for line in (f"overrides.x = {deep(depth)}", ".".join("a" * depth) + " = 1", f"epochs = {'[' * depth}"):
            yield f"recipe {line[:14]} {depth}", training.read_recipe, "a.toml", line
        yield f"override {depth}", overridden, f"epochs={deep(depth)}"
        yield f"run.json {depth}", lambda path: RunFolder(path.parent).sessions(), "run.json", deep(depth)
    yield "20,000 layers", parse_document, wide_document(20_000)
    yield "20,000 layers as text", parse_json, json.dumps(wide_document(20_000))
    yield "long name", parse_document, wide_document(1, "x" * 10**6)
    yield "long text", parse_json, " " * 10**8
    yield "long header", read_weights, "d.safetensors", safetensors_file(b" " * 10**7)
    yield "long length", read_weights, "e.safetensors", (2**62).to_bytes(8, "little")
    for step in (10**18, -1, "x"):
        yield f"step {step}", read_checkpoint, "f.safetensors", checkpoint(step)
    for line in ("self = 1", f"epochs = {'9' * 5000}", 'weights = "a\\u0000b"', 'model = "a\\u0000b"', "\0"):
        yield f"recipe {line[:12]!r}", training.read_recipe, "b.toml", line
    for name, path in (("device", "/dev/zero"), ("long path", "a" * 300), ("NUL", "a\0b")):
        yield name, read_weights, path
    yield "pipe", read_weights, "pipe.safetensors", PIPE
    yield "log pipe", lambda path: Log(path).records(), "pipe.jsonl", PIPE
    zeros = gzip.compress(bytes(65 << 20), 1)
    yield "log of zeros", lambda path: Log(path.with_suffix("")).records(), "log.jsonl.gz", zeros
    yield "port array", lambda path: load_inputs([InputText((), 0, path)], 2, 0), "pipe.npy", PIPE
    names = [f"layer{index}.weight" for index in range(60_000)]
    yield "60,000 names", weights.exchange.read_whole, "g.safetensors", weights_file(names, spec=SPEC.to_json())
    selection = weights.sets.Selection(key=5)
    yield "key", lambda given: weights.sets.choose("a.pth", {"": {}}, (), given), selection


CASES = {name: case for name, *case in cases()}


def run(name, folder):
    read, given, *content = CASES[name]
    read(write(Path(folder, given), *content) if content else given)


@pytest.mark.parametrize("name", CASES)
def test_refused(name, tmp_path):
    start = time.process_time()
    with pytest.raises(MaamError) as caught:
        run(name, tmp_path)
    assert time.process_time() - start < SECONDS
    assert len(str(caught.value)) < 1000
    assert printable(str(caught.value)).isprintable()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pth.tar", ".ckpt"])
def test_pipes_as_checkpoints(suffix, tmp_path):
    pytest.importorskip("mindspore" if suffix == ".ckpt" else "torch")
    with pytest.raises(MaamError, match="expected a file, got a device or a pipe"):
        convert(write(tmp_path / f"pipe{suffix}", PIPE), tmp_path / "out.safetensors", "maam_digits")


def test_a_checkpoint_that_expands(tmp_path):
    torch = pytest.importorskip("torch")
    stored, packed = tmp_path / "stored.pth", tmp_path / "packed.pth"
    torch.save({"weight": torch.zeros(2**18)}, stored)
    with zipfile.ZipFile(stored) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(MaamError, match=r"packed.pth: the file of \d+ bytes expands to \d+; expected a checkpoint"):
        convert(packed, tmp_path / "out.safetensors", "maam_digits")


@pytest.mark.skipif(os.name != "posix", reason="needs getrusage")
@pytest.mark.parametrize("framework", ["", pytest.param("mindspore", marks=pytest.mark.slow)])
def test_refused_in_one_process(framework, tmp_path):
    """The process neither dies nor needs much memory."""
    if framework:
        pytest.importorskip(framework)
    command = [sys.executable, "-m", "tests.hostile.test_bounds", str(tmp_path), framework]
    found = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr[-2000:]
    report = json.loads(found.stdout.splitlines()[-1])
    assert report["refused"] == len(CASES)
    assert report["megabytes"] < MEGABYTES


def main(folder, framework):
    import resource

    if framework:
        importlib.import_module(framework)
    before, refused = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
    for name in CASES:
        try:
            run(name, folder)
        except MaamError:
            refused += 1
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"refused": refused, "megabytes": (after - before) / 1024}))


if __name__ == "__main__":
    main(*sys.argv[1:])
