"""Atomic writes, locks, the user's cache folder, timing, and parts of error messages."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from maam import _io
from maam._cache import cache_folder, read_cached, write_cached
from maam._messages import check_counts, listed, shortened, suggestion
from maam._system import interleave, ratios
from maam.errors import SpecError, TrainingError


def test_symbolic_links_are_preserved(tmp_path):
    target, link = tmp_path / "there" / "file.json", tmp_path / "link.json"
    target.parent.mkdir()
    link.symlink_to(target)
    for text in ("new", "newer"):
        _io.write_text(link, text)
        assert link.is_symlink()
        assert target.read_text() == text
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_are_written_to(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_bytes)
        _io.write_text(pipe, "text")
        assert read.result(10) == b"text"
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="needs /dev/shm")
def test_files_in_memory_are_replaced():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder, "file")
        for text in ("one", "two"):
            _io.write_text(path, text)
        assert path.read_text() == "two"
        assert not _io.is_special(path)


def test_undecodable_names_and_text(tmp_path):
    for name in (b"a\xff.json", b"\xff" * 240):
        path = tmp_path / os.fsdecode(name)
        _io.write_text(path, "text \udcff")
        assert path.read_text() == "text \\udcff"


def test_special_files(tmp_path):
    (tmp_path / "file").write_text("text")
    (tmp_path / "null").symlink_to("/dev/null")
    names = ("file", "null", "none", ".", "/dev/null")
    assert [_io.is_special(tmp_path / name) for name in names] == [False, True, False, False, True]
    program = "from maam import _io; print('before', flush=True); _io.write_text('/dev/stdout', 'text')"
    command = [sys.executable, "-c", program]
    with (tmp_path / "out.txt").open("wb") as out:
        subprocess.run(command, stdout=out, check=True)
    assert (tmp_path / "out.txt").read_text() == "before\ntext"
    assert subprocess.check_output(command, text=True) == "before\ntext"


def wait(there, go):
    there.set()
    go.wait(60)


@pytest.mark.skipif(_io.fcntl is None, reason="needs fcntl")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # since Python 3.12; the child only waits
def test_a_folder_is_locked_once_and_a_forked_process_does_not_keep_the_lock(tmp_path):
    release, context = _io.hold(tmp_path), multiprocessing.get_context("fork")
    with pytest.raises(BlockingIOError):
        _io.hold(tmp_path)
    there, go = context.Event(), context.Event()
    child = context.Process(target=wait, args=(there, go))
    child.start()
    there.wait(60)
    for _ in range(2):  # the second time does nothing
        release()
    try:
        _io.hold(tmp_path)()
    finally:
        go.set()
        child.join()


KEY = {"model": "a", "example": [1, 3, 8, 8]}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"MAAM_CACHE": "off"}, None),
        ({"MAAM_CACHE": "OFF", "XDG_CACHE_HOME": "/x"}, None),
        ({"MAAM_CACHE": "/some/folder", "XDG_CACHE_HOME": "/x"}, Path("/some/folder")),
        ({"XDG_CACHE_HOME": "/x"}, Path("/x/maam")),
        ({"XDG_CACHE_HOME": "relative"}, Path("/home/me/.cache/maam")),
        ({}, Path("/home/me/.cache/maam")),
    ],
)
def test_the_cache_folder(settings, expected, monkeypatch):
    for name in ("MAAM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **settings}.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == expected


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"key": 1, "result": {"engine": "torch"}}', "\udcff"])
def test_results_are_cached_by_key_and_broken_files_and_folders_count_as_empty(text, tmp_path, monkeypatch):
    monkeypatch.setenv("MAAM_CACHE", str(tmp_path / "cache"))
    assert read_cached("engines", KEY) == {}
    write_cached("engines", KEY, {"engine": "torch"})
    assert read_cached("engines", KEY) == {"engine": "torch"}
    assert read_cached("engines", {**KEY, "model": "b"}) == read_cached("others", KEY) == {}
    (path,) = (tmp_path / "cache" / "engines").iterdir()
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert read_cached("engines", KEY) == {}
    write_cached("engines", KEY, {"engine": "openvino"})
    assert read_cached("engines", KEY) == {"engine": "openvino"}
    for unusable in ("off", str(path)):  # a file, not a folder
        monkeypatch.setenv("MAAM_CACHE", unusable)
        write_cached("engines", KEY, {"engine": "torch"})
        assert read_cached("engines", KEY) == {}


def test_each_round_runs_all_functions_and_ratios_are_within_a_round():
    seconds, order = {"a": 0.1, "b": 0.3}, []
    functions = {name: partial(order.append, name) for name in seconds}
    clock, announced = lambda: sum(seconds[name] for name in order), []
    times = interleave(functions, rounds=3, least=0.3, clock=clock, announce=announced.append)
    assert announced == [pytest.approx(3 * (0.3 + 0.3))]
    assert times == {"a": [pytest.approx(0.1)] * 3, "b": [pytest.approx(0.3)] * 3}
    assert order == ["a"] * 2 + ["b"] * 2 + (["a"] * 3 + ["b"]) * 3
    times = {"base": [1.0, 10.0, 2.0], "fast": [0.5, 5.0, 1.0], "odd": [1.0, 1.0, 1.0]}
    assert ratios(times, "base") == {"base": 1.0, "fast": 2.0, "odd": 2.0}


def test_parts_of_messages_and_counts():
    assert listed(["conv1", "", "a\nb", "x" * 300]) == f"conv1, '', 'a\\nb', '{'x' * 200}...'"
    assert shortened(np.zeros((9, 9))).endswith("...")
    assert shortened(10**5000) == "a huge int"
    assert suggestion("maff", ["maf", "mafc", "se"], count=2) == "did you mean 'maf' or 'mafc'?"
    assert suggestion("relu", ["maf", "se"], "`maam list` shows all") == "`maam list` shows all"
    check_counts(steps=1, rounds=np.int64(3))
    for value in (0, -1, True, 2.0, "1", None):
        with pytest.raises(SpecError, match=rf"^steps: expected an integer of at least 1, got {value!r}$"):
            check_counts(steps=value)
    with pytest.raises(TrainingError):
        check_counts(TrainingError, steps=0)
