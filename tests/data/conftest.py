"""Small data sets in the official layouts and a local server that offers them."""

import hashlib
import io
import pickle
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

from maam.data import archives, cifar

RECORDS = {"train": 12, "test": 10}
NAMES = {
    "class": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "coarse": [f"coarse {number}" for number in range(20)],
    "fine": [f"fine {number}" for number in range(100)],
}


def write_data(form, name, root):
    """Write a small data set in the binary or the Python layout, and return its pixels and labels by file."""
    layout = cifar.LAYOUTS[name]
    rng = np.random.default_rng(len(name))
    folder, binary = Path(root) / getattr(layout, f"{form}_folder"), form == "binary"
    folder.mkdir(parents=True)
    content = SimpleNamespace(folder=folder, pixels={}, labels={})
    for file, split in ((file, split) for split, files in layout.files.items() for file in files):
        numbers = np.arange(RECORDS[split])
        pixels = rng.integers(0, 256, (len(numbers), 3072), dtype=np.uint8)
        kinds = {kind: (numbers + rng.integers(kind.classes)) % kind.classes for kind in layout.label_kinds}
        content.pixels[file] = pixels
        content.labels[file] = {kind.name: labels for kind, labels in kinds.items()}
        lists = {kind.labels_key: labels.tolist() for kind, labels in kinds.items()}
        table = np.column_stack([*kinds.values(), pixels]).astype(np.uint8)
        written = table.tobytes() if binary else pickle.dumps({b"data": pixels, **lists}, protocol=2)
        (folder / (f"{file}.bin" if binary else file)).write_bytes(written)
    if binary:
        for kind in layout.label_kinds:
            (folder / kind.names_file).write_text("\n".join(NAMES[kind.name]) + "\n\n")
    else:
        names = {kind.names_key: [name.encode() for name in NAMES[kind.name]] for kind in layout.label_kinds}
        (folder / layout.meta_file).write_bytes(pickle.dumps(names, protocol=2))
    return content


@pytest.fixture(autouse=True)
def small_layouts(monkeypatch):
    for name, layout in cifar.LAYOUTS.items():
        monkeypatch.setitem(cifar.LAYOUTS, name, replace(layout, records=RECORDS))


write_binary, write_python = partial(write_data, "binary"), partial(write_data, "python")


@pytest.fixture(params=["binary", "python"])
def write(request):
    return partial(write_data, request.param)


def pack(source, paths=(), kind=None, target=""):
    """Return a tar.gz archive of the folder `source`, and of further members of a kind, which links to a target."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(source, arcname=source.name)
        for path in paths:
            member = tarfile.TarInfo(path)
            member.type, member.linkname = kind, str(target)
            tar.addfile(member)
    return buffer.getvalue()


@pytest.fixture
def server(monkeypatch):
    """A server that counts requests; a test sets its `body`, `status` (None: not HTTP) and `length`."""
    state = SimpleNamespace(body=b"", status=200, length=None, requests=0, stall=threading.Event())
    state.stall.set()

    class Handler(BaseHTTPRequestHandler):
        log_message = Mock()

        def do_GET(self):
            state.requests += 1
            state.stall.wait(20)
            if state.status is not None:
                self.send_response(state.status)
                if state.length != "none":
                    self.send_header("Content-Length", str(state.length or len(state.body)))
                self.end_headers()
            self.wfile.write(state.body)

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running, ThreadPoolExecutor(1) as pool:
        state.url = f"http://127.0.0.1:{running.server_port}/archive.tar.gz"
        pool.submit(running.serve_forever, poll_interval=0.02)
        yield state
        state.stall.set()
        running.shutdown()


@pytest.fixture
def published(server, tmp_path, monkeypatch):
    """The server with a small CIFAR-10, the folder `source`, as the official archive; `publish` changes the archive."""

    def publish(name, body):
        server.body = body
        monkeypatch.setitem(archives.ARCHIVES, name, archives.Archive(server.url, hashlib.md5(body).hexdigest()))

    server.source = write_binary("cifar10", tmp_path / "source").folder
    server.publish = publish
    publish("cifar10", pack(server.source))
    return server


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"
