"""The pickled files: what is admitted, and what a damaged or hostile file does."""

import os
import pickle
import struct

import numpy as np
import pytest

from maam.data import cifar10, cifar100
from maam.errors import DataError


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.parts = (function, arguments)

    def __reduce__(self):
        return self.parts


@pytest.fixture
def refused(write_python, tmp_path):
    """Write `content` as the test file, and return the message with which it is refused."""
    file = write_python("cifar10", tmp_path).folder / "test_batch"

    def read(content):
        file.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=2))
        with pytest.raises(DataError) as caught:
            cifar10(tmp_path, "test")
        text = str(caught.value)
        assert text.startswith(f"{file}: ")
        assert text.endswith(f"run: maam data cifar10 {tmp_path}")
        assert "\n" not in text
        return text

    return read


def good(**changes):
    values = {"data": np.zeros((10, 3072), np.uint8), "labels": [0] * 10} | changes
    return {key.encode(): value for key, value in values.items()}


def python2_pickle(pixels, labels):
    """The bytes that Python 2 and its numpy wrote: strings are byte strings, labels a list of numbers."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNN"
    dtype += b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"".join(b"J" + struct.pack("<i", size) for size in pixels.shape) + b"\x86"
    raw = b"T" + struct.pack("<i", pixels.nbytes) + pixels.tobytes()
    start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    array = start + b"(K\x01" + shape + dtype + b"\x89" + raw + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + numbers + b"u."


def test_a_file_of_python_2_is_read(write_python, tmp_path):
    content = write_python("cifar10", tmp_path)
    pixels = content.pixels["test_batch"][::-1].copy()
    (content.folder / "test_batch").write_bytes(python2_pickle(pixels, range(10)))
    result = cifar10(tmp_path, "test")
    np.testing.assert_array_equal(result.images, pixels.reshape(10, 3, 32, 32))
    np.testing.assert_array_equal(result.labels, np.arange(10))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_every_protocol_of_numpy_1_and_2_is_read(write_python, tmp_path, protocol):
    file = write_python("cifar10", tmp_path).folder / "test_batch"
    written = pickle.dumps(good(labels=[3] * 10), protocol=protocol)
    file.write_bytes(written)
    assert set(cifar10(tmp_path, "test").labels) == {3}
    if protocol < 4:  # a GLOBAL line has no length, so the module may be renamed
        old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
        file.write_bytes(written.replace(old, new) if old in written else written.replace(new, old))
        assert set(cifar10(tmp_path, "test").labels) == {3}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_hostile_pickle_is_refused_and_not_run(refused, tmp_path, protocol):
    marker = tmp_path / "executed"
    text = refused(pickle.dumps(Call(os.system, f"touch {marker}"), protocol=protocol))
    assert f"{os.system.__module__}.system" in text
    assert not marker.exists()


@pytest.mark.parametrize("function", [eval, getattr, pickle.loads, np.load, np.fromfile, np.memmap, __import__, Call])
def test_only_the_names_of_arrays_are_admitted(refused, function):
    assert "it names" in refused(good(data=Call(function, b"1")))


def test_an_object_of_the_old_instance_opcode_is_refused(refused, tmp_path):
    refused(b"(S'touch " + str(tmp_path / "executed").encode() + b"'\nios\nsystem\n.")
    assert not (tmp_path / "executed").exists()


def test_a_pickle_cannot_change_an_admitted_function(refused):
    refused(b"c_codecs\nencode\n(N}S'__doc__'\nS'changed'\nstb.")
    refused(b"cnumpy\nndarray\n(N}S'__doc__'\nS'changed'\nstb.")
    assert "changed" not in (np.ndarray.__doc__, __import__("_codecs").encode.__doc__)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_a_pickle_that_is_cut_short_is_refused(refused, share):
    whole = pickle.dumps(good(), protocol=2)
    assert "no harmless whole pickle" in refused(whole[: int(share * len(whole))])


@pytest.mark.parametrize(
    "content",
    [
        b"\x1f\x8b garbage",
        b"\x00" * 100,
        b"<!DOCTYPE html>\n<html>",
        b".",
        b"\x80\x63.",
        b"\x80\x02P1\n.",
        b"0" * 10,
        b"\x80\x04\x8e" + b"\xff" * 8,
        b"\x80\x02cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02c\xff\n\xfe\n.",
    ],
)
def test_garbage_is_refused(refused, content):
    refused(content)


def test_random_damage_gives_nothing_but_data_errors(write_python, tmp_path):
    file = write_python("cifar10", tmp_path).folder / "test_batch"
    whole = pickle.dumps(good(), protocol=2)
    rng = np.random.default_rng(0)
    refusals = 0
    for _ in range(300):
        broken = bytearray(whole)
        # Most of the file is pixels; the opcodes are in its first and its last bytes.
        broken[rng.choice([rng.integers(160), -rng.integers(1, 80)])] = rng.integers(256)
        file.write_bytes(broken)
        try:
            cifar10(tmp_path, "test")
        except DataError:
            refusals += 1
    assert refusals > 50


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([1, 2], "a pickled list"),
        ({}, "data is missing"),
        ({"data": 1, "labels": []}, "data is missing"),
        (good(data=[0] * 3072), "data is a list of 3072"),
        (good(data=np.zeros((10, 3072), np.int64)), "data is int64 (10, 3072)"),
        (good(data=np.zeros((10, 3072), object)), "data is object (10, 3072)"),
        (good(data=np.zeros((9, 3072), np.uint8)), "data is uint8 (9, 3072)"),
        (good(data=np.zeros((10, 3, 32, 32), np.uint8)), "data is uint8 (10, 3, 32, 32)"),
        (good(data=np.zeros(30720, np.uint8)), "data is uint8 (30720,)"),
        (good(labels=[0] * 9), "labels is a list of 9"),
        (good(labels=None), "labels is missing"),
        (good(labels=b"0123456789"), "labels is a bytes"),
        (good(labels=[0] * 9 + [10]), "record 9 has class label 10"),
        (good(labels=[-1] + [0] * 9), "record 0 has class label -1"),
        (good(labels=[10**400] * 10), "record 0 has class label 1000"),
        (good(labels=[0.0] * 10), "record 0 has class label 0.0"),
        (good(labels=[True] * 10), "record 0 has class label True"),
        (good(labels=[[0]] * 10), "record 0 has class label [0]"),
    ],
)
def test_a_sound_pickle_with_other_content_is_refused(refused, content, found):
    assert f"test_batch: {found}" in refused(content)


@pytest.mark.parametrize(
    "names",
    [{}, {b"label_names": [b"x"] * 9}, {b"label_names": ["x"] * 10}, {b"label_names": [b"\xff"] * 10}],
)
def test_wrong_class_names_are_refused(write_python, tmp_path, names):
    file = write_python("cifar10", tmp_path).folder / "batches.meta"
    file.write_bytes(pickle.dumps(names, protocol=2))
    with pytest.raises(DataError, match=r"batches.meta: .*10"):
        cifar10(tmp_path, "test")


def test_a_coarse_label_out_of_range_is_refused(write_python, tmp_path):
    file = write_python("cifar100", tmp_path).folder / "test"
    changed = pickle.loads(file.read_bytes())
    changed[b"coarse_labels"][4] = 20
    file.write_bytes(pickle.dumps(changed, protocol=2))
    with pytest.raises(DataError, match="record 4 has coarse label 20"):
        cifar100(tmp_path, "test")
