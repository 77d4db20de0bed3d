"""Downloads of archives from a local server: successful ones, the error of each failure, and the progress."""

import errno
import io
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from hashlib import md5
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from maam.data import archives, cifar10, cifar100, download
from maam.errors import DataError
from tests.data.conftest import pack, write_binary, write_python
from tests.errors import error_of
from tests.hostile import bombs

FOLDER = "cifar-10-batches-bin"


def names_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def fetch(root, name="cifar10", **options):
    return download(name, root, progress=lambda done, total: None, **options)


@pytest.fixture
def fails(root):
    """Download into a root with a damaged folder; check the message, and that the root is unchanged."""
    kept = root / FOLDER / "mine"
    kept.parent.mkdir(parents=True)
    kept.write_text("kept")

    def fail(*parts, **options):
        text = error_of(DataError, fetch, root, **options)
        assert all(part in text for part in parts), text
        assert (names_in(root), names_in(root / FOLDER), kept.read_text()) == ([FOLDER], ["mine"], "kept")

    return fail


@pytest.mark.parametrize(("name", "read"), [("cifar10", cifar10), ("cifar100", cifar100)])
def test_downloads_and_unpacks(published, root, tmp_path, name, read, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/none")  # nothing is written outside the root
    source = write_binary(name, tmp_path / "other").folder
    published.publish(name, pack(source))
    folder = fetch(root, name)
    assert folder == root / source.name
    assert names_in(root) == [folder.name]
    for split in ("train", "test"):
        np.testing.assert_array_equal(read(root, split).images, read(source, split).images)


def test_complete_data_are_not_downloaded_again(published, root, tmp_path):
    folder, python = fetch(root), write_python("cifar10", tmp_path / "python").folder
    assert fetch(root) == fetch(folder) == folder
    assert fetch(tmp_path / "python") == python
    assert published.requests == 1


def test_damaged_data_are_replaced_and_kept(published, root):
    damaged = {f"{FOLDER}.damaged": "test_batch.bin", f"{FOLDER}-2.damaged": "data_batch_5.bin"}
    for name in damaged.values():
        (fetch(root) / name).write_bytes(b"damaged " + name.encode())
    fetch(root)
    assert len(cifar10(root)) == 60
    assert names_in(root) == [FOLDER, *sorted(damaged)]
    assert all((root / folder / name).read_bytes() == b"damaged " + name.encode() for folder, name in damaged.items())


def test_another_url_and_checksum(published, root):
    archives.ARCHIVES["cifar10"] = archives.Archive("http://127.0.0.1:1/", "0" * 32)
    checksum = md5(published.body).hexdigest().upper()
    assert fetch(root, url=published.url, md5=checksum) == root / FOLDER


def test_two_downloads_at_once(published, root):
    (root / ".cifar10-killed").mkdir(parents=True)
    published.stall.clear()
    with ThreadPoolExecutor(2) as pool:
        pending = [pool.submit(fetch, root) for _ in range(2)]
        published.stall.set()
        assert {found.result() for found in pending} == {root / FOLDER}
    assert names_in(root) == [FOLDER]
    assert published.requests == 1


class TestFailures:
    def test_wrong_answers_and_urls(self, published, fails):
        answers = {f"HTTP Error {status}": {"status": status} for status in (404, 403, 500)}
        answers["ended after 3 of 103 bytes"] = {"status": 200, "body": b"cut", "length": 103}
        answers["cannot be downloaded"] = {"status": None, "body": b"nonsense\r\n\r\n"}
        for reason, answer in answers.items():
            vars(published).update(answer)
            fails(published.url, reason)
        for url in ("nonsense", "gopher://x/y", "http://127.0.0.1:port/", "http://"):
            fails(f"{url}: cannot be downloaded", url=url)
        fails("http://127.0.0.1:1/: cannot be downloaded", "refused", url="http://127.0.0.1:1/")

    def test_wrong_checksum_before_unpacking(self, published, fails, monkeypatch):
        monkeypatch.setattr(archives, "_unpack", None)
        for body in (b"", b"<html>", published.body + b"\0"):
            published.body = body
            fails(f"MD5 checksum is {md5(body).hexdigest()}", f"expected {archives.ARCHIVES['cifar10'].md5}")

    def test_invalid_archives_and_those_that_grow(self, published, fails):
        whole = published.body
        invalid = [whole[: int(part * len(whole))] for part in (0.3, 0.6, 0.99)]
        # Random pixels are stored in blocks of at most 64 KiB, and no block can begin with 0xFF.
        invalid += [whole[:20_000] + b"\xff" * 70_000, b"no archive", b"\x1f\x8b\x08\x00 no archive"]
        reasons = dict.fromkeys([*invalid, bombs.tar_of_nested_headers(5000)], "not a valid tar.gz archive")
        reasons[bombs.tar_of_zeros(1 << 32)] = "unpacks to more than"
        reasons[bombs.tar_of_members(200)] = "more than 100 files"
        reasons[bombs.tar_with_pax_header(1 << 28)] = "a header is too large"
        for body, reason in reasons.items():
            published.publish("cifar10", body)
            fails(published.url, reason)

    @pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
    def test_only_the_files_of_the_data_set_are_unpacked(self, published, root, tmp_path, kind):
        paths = ("../escaped", "/tmp/maam-escaped", f"{FOLDER}/../../../escaped", f"{FOLDER}/more")
        published.publish("cifar10", pack(published.source, paths, kind, "/etc/passwd"))
        assert names_in(fetch(root)) == names_in(published.source)
        assert not [*tmp_path.rglob("escaped"), *Path("/tmp").glob("maam-escaped")]

    @pytest.mark.parametrize("kind", [None, tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["missing", "symbolic", "hard"])
    def test_a_missing_file_or_a_link_in_its_place(self, published, fails, kind):
        (published.source / "data_batch_4.bin").unlink()
        links = [f"{FOLDER}/data_batch_4.bin"] if kind else []
        published.publish("cifar10", pack(published.source, links, kind, published.source / "data_batch_1.bin"))
        fails(f"contains no complete {FOLDER}")

    def test_downloads_that_stall_or_have_no_end(self, published, fails, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(archives, "TIMEOUT_SECONDS", 0.2)
            published.stall.clear()
            fails(published.url, "timed out")
        published.stall.set()
        monkeypatch.setattr(archives, "LIMIT_SECONDS", -1.0)
        fails("received only")
        monkeypatch.setattr(archives, "_most_bytes", lambda layout: 1000)
        fails("more than 1000 bytes")

    @pytest.mark.parametrize("function", ["_fetch", "_unpack", "_move"])
    def test_full_disk_and_interruption(self, published, fails, root, function, monkeypatch):
        monkeypatch.setattr(archives, function, Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
        fails(f"{root}: cannot store cifar10", "No space left on device")
        monkeypatch.setattr(archives, function, Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fetch(root)
        assert names_in(root) == [FOLDER]

    def test_invalid_arguments(self, published, tmp_path):
        file = tmp_path / "file"
        file.write_text("kept")
        assert f"{file}: cannot store cifar10" in error_of(DataError, fetch, file)
        assert file.read_text() == "kept"
        assert error_of(DataError, fetch, tmp_path, "mnist") == "name is 'mnist'; expected 'cifar10' or 'cifar100'"


class TestProgress:
    @pytest.mark.parametrize("length", [None, "none"])
    def test_is_reported_to_the_end(self, published, root, monkeypatch, length):
        monkeypatch.setattr(archives, "_CHUNK_BYTES", 50_000)
        published.length = length
        calls = []
        download("cifar10", root, progress=lambda *call: calls.append(call))
        size, received = len(published.body), [done for done, _ in calls]
        assert received == sorted(set(received))
        assert (len(received) >= size // 50_000, received[-1]) == (True, size)
        assert {total for _, total in calls} == {size if length is None else None}

    def test_a_line_at_each_tenth_on_standard_error(self, published, root, capsys):
        download("cifar10", root)
        output = capsys.readouterr()
        assert (output.out, output.err.splitlines()[-1]) == ("", "cifar10: 100 %")
        with archives.show_progress("cifar10") as report:
            for done in (*range(0, 1001, 7), 1000):
                report(done, 1000)
        assert capsys.readouterr().err.splitlines() == [f"cifar10: {percent} %" for percent in range(10, 101, 10)]
        for total in (None, 0):  # no line if the size is unknown
            with archives.show_progress("cifar10") as report:
                report(10, total)
            assert capsys.readouterr().err == ""

    @pytest.mark.parametrize(("total", "shown"), [(None, "2.0/? MB"), (4_000_000, "2.0/4.0 MB")])
    def test_a_bar_on_a_terminal(self, monkeypatch, total, shown):
        terminal = io.StringIO()
        terminal.isatty = lambda: True
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys, "stderr", terminal)
        with archives.show_progress("cifar10") as report:
            report(2_000_000, total)
        assert all(text in terminal.getvalue() for text in ("cifar10", shown))
