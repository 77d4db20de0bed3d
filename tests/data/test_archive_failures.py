"""All the ways in which a download can fail: each is named, and leaves nothing behind."""

import errno
import hashlib
import socket
import tarfile
import threading

import pytest

from maam.data import download
from maam.errors import DataError

FOLDER = "cifar-10-batches-bin"


def message(call, *arguments, **options):
    with pytest.raises(DataError) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def left_over(root):
    return sorted(path.name for path in root.iterdir()) if root.exists() else []


def silent(done, total):
    pass


def fail(root, *parts, **options):
    """Download into a root that holds a damaged folder, and expect a message and an untouched root."""
    kept = root / FOLDER / "mine"
    kept.parent.mkdir(parents=True)
    kept.write_text("kept")
    text = message(download, "cifar10", root, progress=silent, **options)
    assert all(part in text for part in parts), text
    assert left_over(root) == [FOLDER]
    assert left_over(root / FOLDER) == ["mine"]
    assert kept.read_text() == "kept"


@pytest.mark.parametrize("status", [404, 403, 500])
def test_an_http_error_is_named(published, root, status):
    published.status = status
    fail(root, published.url, f"HTTP Error {status}")


def test_a_refused_connection_is_named(root):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fail(root, f"http://127.0.0.1:{port}/", "refused", url=f"http://127.0.0.1:{port}/")


def test_a_server_that_says_nothing_runs_into_the_timeout(published, root, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.2)
    published.stall.clear()
    fail(root, published.url, "timed out")


@pytest.mark.parametrize("url", ["nonsense", "gopher://x/y", "http://127.0.0.1:port/", "http://"])
def test_a_url_that_is_none_is_named(root, url):
    fail(root, f"{url}: cannot be downloaded", url=url)


def test_an_answer_that_is_not_http_is_named(root):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            connection = listening.accept()[0]
            with connection:
                connection.recv(1000)
                connection.sendall(b"nonsense\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        fail(root, "cannot be downloaded", url=f"http://127.0.0.1:{listening.getsockname()[1]}/")
        thread.join()


def test_a_download_that_is_cut_short_is_named(published, root):
    published.length = len(published.body)
    published.body = published.body[:-100]
    fail(root, published.url, f"ended after {len(published.body)} of {published.length} bytes")


@pytest.mark.parametrize("body", [b"", b"<html>", None])
def test_a_wrong_checksum_is_named_before_anything_is_unpacked(published, root, body, monkeypatch):
    monkeypatch.setattr(download, "_unpack", None)
    official = download.ARCHIVES["cifar10"].md5
    published.body = published.body + b"\0" if body is None else body
    fail(root, "MD5 checksum is " + hashlib.md5(published.body).hexdigest(), f"expected {official}")


@pytest.mark.parametrize("body", [b"no archive", b"\x1f\x8b\x08\x00 no archive"])
def test_a_body_that_is_no_archive_is_named(published, root, body):
    published.publish("cifar10", body)
    fail(root, published.url)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_an_archive_that_ends_early_is_named(published, root, kept):
    published.publish("cifar10", published.body[: int(kept * len(published.body))])
    fail(root, "is no sound tar.gz archive")


def test_an_archive_that_is_damaged_inside_is_named(published, root):
    # Random pixels are stored in blocks of at most 64 KiB, and no block may begin with 0xFF.
    published.publish("cifar10", published.body[:20_000] + b"\xff" * 70_000)
    fail(root, "is no sound tar.gz archive")


@pytest.mark.parametrize("path", ["../escaped", "/tmp/maam-escaped", f"{FOLDER}/../../../escaped"])
def test_an_archive_that_leaves_its_folder_is_refused(published, root, tmp_path, path):
    member = tarfile.TarInfo(path)
    source = tmp_path / "source-cifar10" / FOLDER
    published.publish("cifar10", published.pack(source, FOLDER, member))
    if path.startswith("/"):  # the filter takes the leading slash away
        assert download("cifar10", root, progress=silent)
    else:
        fail(root, "outside the destination")
    assert not list(tmp_path.rglob("escaped"))
    assert not (root.parents[-1] / "tmp" / "maam-escaped").exists()


def test_an_archive_without_the_whole_data_is_refused(published, root, tmp_path):
    source = tmp_path / "source-cifar10" / FOLDER
    (source / "data_batch_4.bin").unlink()
    published.publish("cifar10", published.pack(source, FOLDER))
    fail(root, f"holds no whole {FOLDER}")


@pytest.mark.parametrize("function", ["_fetch", "_unpack", "_move"])
def test_a_full_disk_is_named_and_leaves_nothing(published, root, function, monkeypatch):
    def fill(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, function, fill)
    fail(root, f"{root}: cannot store cifar10", "No space left on device")


@pytest.mark.parametrize("function", ["_fetch", "_unpack", "_move"])
def test_an_interruption_leaves_nothing(published, root, function, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(download, function, interrupt)
    with pytest.raises(KeyboardInterrupt):
        download("cifar10", root, progress=silent)
    assert left_over(root) == []


def test_a_root_that_is_a_file_is_named(published, tmp_path):
    file = tmp_path / "file"
    file.write_text("kept")
    assert f"{file}: cannot store cifar10" in message(download, "cifar10", file, progress=silent)
    assert file.read_text() == "kept"


def test_an_unknown_name_is_named(tmp_path):
    assert message(download, "mnist", tmp_path) == "name is 'mnist'; expected 'cifar10' or 'cifar100'"
