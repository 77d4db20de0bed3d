"""CIFAR-10 and CIFAR-100 in both layouts: what is read, and how damaged and hostile files are refused."""

import os
import pickle
import re
import struct
from functools import partial
from unittest.mock import Mock

import numpy as np
import pytest

from maam.data import cifar, cifar10, cifar100
from maam.errors import DataError
from tests.data.conftest import NAMES, write_binary, write_python
from tests.errors import error_of

OFFICIAL_RECORDS = {name: layout.records for name, layout in cifar.LAYOUTS.items()}  # before the fixtures replace them
FILES = {"cifar10": {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}}
FILES |= {"cifar100": {"train": ["train"], "test": ["test"]}}
refusal = partial(error_of, DataError)


def test_official_sizes():
    sizes = {"cifar10": {"train": 10_000, "test": 10_000}, "cifar100": {"train": 50_000, "test": 10_000}}
    assert sizes == OFFICIAL_RECORDS


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(("name", "mode"), [("cifar10", "class"), ("cifar100", "fine"), ("cifar100", "coarse")])
def test_reads_images_labels_and_class_names(write, tmp_path, name, split, mode):
    """The pixels of an image are 1,024 red, then green, then blue ones, row by row."""
    content, files = write(name, tmp_path), FILES[name][split]
    result = cifar10(tmp_path, split) if name == "cifar10" else cifar100(tmp_path, split, label_mode=mode)
    pixels = np.concatenate([content.pixels[file] for file in files])
    np.testing.assert_array_equal(result.images, pixels.reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(result.labels, np.concatenate([content.labels[file][mode] for file in files]))
    assert (result.images.dtype, result.labels.dtype) == (np.uint8, np.int32)
    assert result.images.flags.c_contiguous
    assert result.class_names == tuple(NAMES[mode])
    if mode == "fine":
        np.testing.assert_array_equal(cifar100(tmp_path).labels, content.labels["train"][mode])


def test_root_can_be_the_official_folder_under_any_name(write, tmp_path):
    content = write("cifar10", tmp_path)
    assert len(cifar10(content.folder)) == 60
    renamed = content.folder.rename(tmp_path / "mine")
    assert len(cifar10(str(renamed), "test")) == 10


def test_prefers_the_binary_folder(tmp_path):
    write_python("cifar10", tmp_path)
    (write_binary("cifar10", tmp_path).folder / "test_batch.bin").unlink()
    assert "test_batch.bin" in refusal(cifar10, tmp_path, "test")


def test_unknown_choices_and_missing_folders(tmp_path):
    assert refusal(cifar10, tmp_path, "val") == "split is 'val'; expected 'train' or 'test'"
    assert refusal(cifar100, tmp_path, label_mode="x") == "label_mode is 'x'; expected 'coarse' or 'fine'"
    names = ("cifar-10-batches-bin", "cifar-10-batches-py")
    for root in (f"{tmp_path}/none", f"{tmp_path}/none/{names[0]}"):
        found = f"{root}: found neither {names[0]} nor {names[1]}; expected one of them here; "
        assert refusal(cifar10, root) == f"{found}run: maam data cifar10 {root}"
    for name in names:
        (tmp_path / name).mkdir()
        assert "the file is missing" in refusal(cifar10, tmp_path / name)


@pytest.mark.parametrize("pattern", ["batches.meta*", "data_batch_3*"])
def test_missing_and_unreadable_files(write, tmp_path, pattern, monkeypatch):
    file = next(write("cifar10", tmp_path).folder.glob(pattern))
    content = file.read_bytes()
    file.unlink()
    advice = f"expected all files of {file.parent.name}; run: maam data cifar10 {tmp_path}"
    assert refusal(cifar10, tmp_path) == f"{file}: the file is missing; {advice}"
    file.write_bytes(content)
    for name in ("read_bytes", "read_text"):
        monkeypatch.setattr(f"pathlib.Path.{name}", Mock(side_effect=PermissionError(13, "Permission denied")))
    assert "cannot be read ([Errno 13] Permission denied)" in refusal(cifar10, tmp_path)


class TestBinaryFiles:
    def test_wrong_sizes(self, tmp_path):
        file = write_binary("cifar10", tmp_path).folder / "data_batch_2.bin"
        content = file.read_bytes() + bytes(3073)
        for size in (0, 1, 12 * 3073 - 1, 12 * 3073 + 1, 13 * 3073):
            file.write_bytes(content[:size])
            expected = f"{size} bytes; expected 36876 bytes (12 records of 3073); run: maam data cifar10 {tmp_path}"
            assert refusal(cifar10, tmp_path) == f"{file}: {expected}"

    @pytest.mark.parametrize(("column", "label", "kind"), [(0, 20, "coarse"), (1, 100, "fine")])
    @pytest.mark.parametrize("mode", ["fine", "coarse"])
    def test_label_out_of_range(self, tmp_path, column, label, kind, mode):
        file = write_binary("cifar100", tmp_path).folder / "test.bin"
        content = bytearray(file.read_bytes())
        content[7 * 3074 + column] = label
        file.write_bytes(content)
        text = refusal(cifar100, tmp_path, "test", label_mode=mode)
        assert f"{file}: record 7 has {kind} label {label}; expected a label in 0..{label - 1}" in text

    def test_wrong_class_names(self, tmp_path):
        file = write_binary("cifar10", tmp_path).folder / "batches.meta.txt"
        for content in (b"", b"airplane\n" * 9, b"airplane\n" * 11, b"\xff\xfe\x00"):
            file.write_bytes(content)
            assert refusal(cifar10, tmp_path).startswith(f"{file}: ")


def good(**changes):
    """Return the content of a test file, or one with other values."""
    values = {"data": np.zeros((10, 3072), np.uint8), "labels": [0] * 10} | changes
    return {key.encode(): value for key, value in values.items()}


def python2_pickle(pixels, labels):
    """Return the bytes that Python 2 and its numpy wrote: strings are byte strings, labels a list of numbers."""

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


class Call:
    """An object that pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.parts = (function, arguments)

    def __reduce__(self):
        return self.parts


class TestPickledFiles:
    @pytest.fixture
    def file(self, tmp_path):
        return write_python("cifar10", tmp_path).folder / "test_batch"

    @pytest.fixture
    def refused(self, file, tmp_path):
        """Write `content` as the test file, and return the message of its refusal."""

        def read(content):
            file.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=2))
            text = refusal(cifar10, tmp_path, "test")
            assert text.startswith(f"{file}: ")
            assert text.endswith(f"run: maam data cifar10 {tmp_path}")
            return text

        return read

    def test_reads_a_file_of_python_2(self, file, tmp_path):
        pixels = np.random.default_rng(0).integers(0, 256, (10, 3072), dtype=np.uint8)
        file.write_bytes(python2_pickle(pixels, range(10)))
        result = cifar10(tmp_path, "test")
        np.testing.assert_array_equal(result.images.reshape(10, 3072), pixels)
        np.testing.assert_array_equal(result.labels, np.arange(10))

    @pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
    def test_reads_every_protocol_of_numpy_1_and_2(self, file, tmp_path, protocol):
        written = pickle.dumps(good(labels=[3] * 10), protocol=protocol)
        file.write_bytes(written)
        assert set(cifar10(tmp_path, "test").labels) == {3}
        if protocol < 4:  # a GLOBAL line has no length, so the module can be renamed
            old, new = b"numpy.core.multiarray", b"numpy._core.multiarray"
            file.write_bytes(written.replace(old, new) if old in written else written.replace(new, old))
            assert set(cifar10(tmp_path, "test").labels) == {3}

    @pytest.mark.parametrize("protocol", [0, 2, 4, 5])
    def test_a_hostile_pickle_is_not_run(self, refused, tmp_path, protocol):
        marker = tmp_path / "executed"
        text = refused(pickle.dumps(Call(os.system, f"touch {marker}"), protocol=protocol))
        assert f"{os.system.__module__}.system" in text
        refused(b"(S'touch " + str(marker).encode() + b"'\nios\nsystem\n.")  # the INST opcode
        assert not marker.exists()

    def test_only_the_names_of_arrays_are_admitted_and_not_changed(self, refused):
        for function in (eval, getattr, pickle.loads, np.load, np.fromfile, np.memmap, __import__, Call):
            assert "it names" in refused(good(data=Call(function, b"1")))
        refused(b"c_codecs\nencode\n(N}S'__doc__'\nS'changed'\nstb.")
        refused(b"cnumpy\nndarray\n(N}S'__doc__'\nS'changed'\nstb.")
        assert "changed" not in (np.ndarray.__doc__, __import__("_codecs").encode.__doc__)

    def test_truncated_pickle_and_garbage(self, refused):
        whole = pickle.dumps(good(), protocol=2)
        contents = [whole[: int(fraction * len(whole))] for fraction in (0, 0.001, 0.5, 0.999)]
        contents += [b"\x1f\x8b garbage", b"\x00" * 100, b"<!DOCTYPE html>\n<html>", b".", b"0" * 10]
        contents += [b"\x80\x63.", b"\x80\x02P1\n.", b"\x80\x04\x8e" + b"\xff" * 8, b"\x80\x02c\xff\n\xfe\n."]
        contents += [b"\x80\x02cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85R."]  # an array of 2 GiB
        assert all("cannot be unpickled safely" in refused(content) for content in contents)

    def test_random_damage_raises_only_data_errors(self, file, tmp_path):
        whole = pickle.dumps(good(), protocol=2)
        rng, refusals = np.random.default_rng(0), 0
        for _ in range(300):
            broken = bytearray(whole)
            # Most of the file is pixels; the opcodes are in the first and the last bytes.
            broken[rng.choice([rng.integers(160), -rng.integers(1, 80)])] = rng.integers(256)
            file.write_bytes(broken)
            try:
                cifar10(tmp_path, "test")
            except DataError:
                refusals += 1
        assert refusals > 50

    def test_valid_pickle_with_other_content(self, refused):
        assert "test_batch: a pickled list" in refused([1, 2])
        for content in ({}, {"data": 1, "labels": []}):
            assert "test_batch: data is missing" in refused(content)
        assert "test_batch: cannot be unpickled safely" in refused(good(data=np.zeros((10, 3072), object)))
        data = {"a list of 3072": [0] * 3072, "uint8 (30720,)": np.zeros(30720, np.uint8)}
        data |= {"int64 (10, 3072)": np.zeros((10, 3072), np.int64), "uint8 (9, 3072)": np.zeros((9, 3072), np.uint8)}
        data |= {"uint8 (10, 3, 32, 32)": np.zeros((10, 3, 32, 32), np.uint8)}
        labels = {"labels is a list of 9": [0] * 9, "labels is missing": None, "labels is a bytes": b"0123456789"}
        labels |= {"record 9 has class label 10": [0] * 9 + [10], "record 0 has class label -1": [-1] + [0] * 9}
        labels |= {"record 0 has class label 1000": [10**400] * 10, "record 0 has class label 0.0": [0.0] * 10}
        labels |= {"record 0 has class label True": [True] * 10, "record 0 has class label [0]": [[0]] * 10}
        for found, value in data.items():
            assert f"test_batch: data is {found}" in refused(good(data=value))
        for found, value in labels.items():
            assert f"test_batch: {found}" in refused(good(labels=value))

    def test_wrong_class_names(self, file, tmp_path):
        for content in ({}, *({b"label_names": names} for names in ([b"x"] * 9, ["x"] * 10, [b"\xff"] * 10))):
            file.with_name("batches.meta").write_bytes(pickle.dumps(content, protocol=2))
            assert re.search(r"batches.meta: .*10", refusal(cifar10, tmp_path, "test"))

    def test_coarse_label_out_of_range(self, tmp_path):
        file = write_python("cifar100", tmp_path).folder / "test"
        changed = pickle.loads(file.read_bytes())
        changed[b"coarse_labels"][4] = 20
        file.write_bytes(pickle.dumps(changed, protocol=2))
        assert "record 4 has coarse label 20" in refusal(cifar100, tmp_path, "test")
