"""Downloads from a server on this machine, and all the ways in which one can fail."""

import errno
import hashlib
import io
import socket
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest

from maam.data import archives, cifar10, cifar100, download
from maam.errors import DataError

FOLDER = "cifar-10-batches-bin"


def pack(source, name, extra=None):
    """The bytes of a tar.gz archive that holds the folder `source` as `name`, and one extra member."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(source, arcname=name)
        if extra is not None:
            tar.addfile(extra)
    return buffer.getvalue()


@pytest.fixture
def server(monkeypatch):
    """A server whose `body`, `status` and headers a test sets; it counts the requests."""
    state = SimpleNamespace(body=b"", status=200, length=None, requests=0, stall=threading.Event())
    state.stall.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.requests += 1
            state.stall.wait(20)
            self.send_response(state.status)
            if state.length != "none":
                self.send_header("Content-Length", str(state.length or len(state.body)))
            self.end_headers()
            self.wfile.write(state.body)

        def log_message(self, *arguments):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        state.url = f"http://127.0.0.1:{running.server_port}/archive.tar.gz"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield state
        state.stall.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def published(server, write_binary, tmp_path, monkeypatch):
    """A whole small CIFAR-10 and CIFAR-100 on the server, in place of the official archives."""

    def publish(name, body=None):
        if body is None:
            content = write_binary(name, tmp_path / f"source-{name}")
            body = pack(content.folder, content.folder.name)
        server.body = body
        monkeypatch.setitem(
            archives.ARCHIVES, name, archives.Archive(server.url, hashlib.md5(body).hexdigest())
        )
        return body

    publish("cifar10")
    server.publish = publish
    return server


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


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


@pytest.mark.parametrize(("name", "read"), [("cifar10", cifar10), ("cifar100", cifar100)])
def test_a_download_is_unpacked_and_can_be_read(published, root, tmp_path, name, read):
    published.publish(name) if name == "cifar100" else None
    folder = download(name, root, progress=silent)
    assert left_over(root) == [folder.name]
    source = next((tmp_path / f"source-{name}").iterdir())
    assert folder == root / source.name
    for split in ("train", "test"):
        np.testing.assert_array_equal(read(root, split).images, read(source, split).images)


def test_whole_data_is_not_downloaded_again(published, root, write_python, tmp_path):
    folder = download("cifar10", root, progress=silent)
    assert download("cifar10", root, progress=silent) == folder
    assert download("cifar10", folder, progress=silent) == folder
    python = write_python("cifar10", tmp_path / "python").folder
    assert download("cifar10", tmp_path / "python", progress=silent) == python
    assert published.requests == 1


def test_damaged_data_is_replaced_and_kept_aside(published, root):
    for name in ("test_batch.bin", "data_batch_5.bin"):
        (download("cifar10", root, progress=silent) / name).write_bytes(b"damaged " + name.encode())
    download("cifar10", root, progress=silent)
    assert len(cifar10(root)) == 60
    assert left_over(root) == [FOLDER, f"{FOLDER}-2.damaged", f"{FOLDER}.damaged"]
    assert (root / f"{FOLDER}.damaged" / "test_batch.bin").read_bytes() == b"damaged test_batch.bin"
    assert (root / f"{FOLDER}-2.damaged" / "data_batch_5.bin").read_bytes() == b"damaged data_batch_5.bin"


def test_another_url_and_checksum_are_used(published, root):
    body, published.body = published.body, b"wrong"
    with pytest.raises(DataError):
        download("cifar10", root, progress=silent)
    published.body = body
    md5 = hashlib.md5(body).hexdigest().upper()
    archives.ARCHIVES["cifar10"] = archives.Archive("http://127.0.0.1:1/", "0" * 32)
    assert download("cifar10", root, url=published.url, md5=md5, progress=silent) == root / FOLDER


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
    monkeypatch.setattr(archives, "TIMEOUT_SECONDS", 0.2)
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
    monkeypatch.setattr(archives, "_unpack", None)
    official = archives.ARCHIVES["cifar10"].md5
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


@pytest.mark.parametrize("path", ["../escaped", "/tmp/maam-escaped", f"{FOLDER}/../../../escaped"])
def test_an_archive_that_leaves_its_folder_is_refused(published, root, tmp_path, path):
    member = tarfile.TarInfo(path)
    source = tmp_path / "source-cifar10" / FOLDER
    published.publish("cifar10", pack(source, FOLDER, member))
    if path.startswith("/"):  # the filter takes the leading slash away
        assert download("cifar10", root, progress=silent)
    else:
        fail(root, "outside the destination")
    assert not list(tmp_path.rglob("escaped"))
    assert not (root.parents[-1] / "tmp" / "maam-escaped").exists()


def test_an_archive_without_the_whole_data_is_refused(published, root, tmp_path):
    source = tmp_path / "source-cifar10" / FOLDER
    (source / "data_batch_4.bin").unlink()
    published.publish("cifar10", pack(source, FOLDER))
    fail(root, f"holds no whole {FOLDER}")


@pytest.mark.parametrize("function", ["_fetch", "_unpack", "_move"])
def test_a_full_disk_is_named_and_leaves_nothing(published, root, function, monkeypatch):
    def fill(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archives, function, fill)
    fail(root, f"{root}: cannot store cifar10", "No space left on device")


@pytest.mark.parametrize("function", ["_fetch", "_unpack", "_move"])
def test_an_interruption_leaves_nothing(published, root, function, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(archives, function, interrupt)
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


@pytest.mark.parametrize("length", [None, "none"])
def test_progress_is_reported_to_the_end(published, root, monkeypatch, length):
    monkeypatch.setattr(archives, "_CHUNK_BYTES", 50_000)
    published.length = length
    calls = []
    download("cifar10", root, progress=lambda done, total: calls.append((done, total)))
    size = len(published.body)
    assert [done for done, _ in calls] == [*range(50_000, size, 50_000), size]
    assert {total for _, total in calls} == {size if length is None else None}


def test_lines_are_printed_where_there_is_no_terminal(published, root, capsys):
    download("cifar10", root)
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines()[-1] == "cifar10: 100 %"
