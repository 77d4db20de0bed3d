"""What is written in one step: links, what is no file, folders that are held."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from maam import _io


def test_a_link_stays_one(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "file.json", tmp_path / "link.json"
    link.symlink_to(target)
    for text in ("new", "newer"):
        _io.write_text(link, text)
        assert link.is_symlink()
        assert target.read_text() == text
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such files")
def test_what_is_no_file_is_written_to(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    _io.write_text(pipe, "text")
    reader.join(10)
    assert read == [b"text"]
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no such folder")
def test_files_in_memory_are_replaced():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "file"
        for text in ("one", "two"):
            _io.write_text(path, text)
        assert path.read_text() == "two"
        assert not _io.is_special(path)


def test_names_that_are_no_text(tmp_path):
    for name in (b"a\xff.json", b"\xff" * 240):
        path = tmp_path / os.fsdecode(name)
        _io.write_text(path, "text \udcff")
        assert path.read_text() == "text \\udcff"


def test_what_is_special(tmp_path):
    (tmp_path / "file").write_text("text")
    (tmp_path / "null").symlink_to("/dev/null")
    assert [_io.is_special(tmp_path / name) for name in ("file", "null", "none", ".")] == [False, True, False, False]
    assert _io.is_special(Path("/dev/null"))


def test_standard_output_is_appended_to(tmp_path):
    program = "from maam import _io; print('before', flush=True); _io.write_text('/dev/stdout', 'text')"
    with (tmp_path / "out.txt").open("wb") as out:
        subprocess.run([sys.executable, "-c", program], stdout=out, check=True)
    assert (tmp_path / "out.txt").read_text() == "before\ntext"
    piped = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert piped.stdout == "before\ntext"


def wait(there, go):
    there.set()
    go.wait(60)


@pytest.mark.skipif(_io.fcntl is None, reason="no locks of this kind")
class TestHolding:
    def test_one_at_a_time(self, tmp_path):
        release = _io.hold(tmp_path)
        with pytest.raises(BlockingIOError):
            _io.hold(tmp_path)
        release()
        release()
        _io.hold(tmp_path)()

    @pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # Python 3.12; the child only waits
    def test_a_child_does_not_hold_on(self, tmp_path):
        """As the processes that decode images, which may outlive one that is killed."""
        release = _io.hold(tmp_path)
        context = multiprocessing.get_context("fork")
        there, go = context.Event(), context.Event()
        child = context.Process(target=wait, args=(there, go))
        child.start()
        there.wait(60)
        release()
        try:
            _io.hold(tmp_path)()
        finally:
            go.set()
            child.join()
