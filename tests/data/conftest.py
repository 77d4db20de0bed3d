"""Small data sets in the official layouts and a local server that offers them."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import threading
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from maam.data import archives, cifar
from maam.errors import DataError

RECORDS = {"train": 12, "test": 10}
NAMES = {
    "class": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "coarse": [f"coarse {number}" for number in range(20)],
    "fine": [f"fine {number}" for number in range(100)],
}


@dataclass
class Content:
    """The written pixels (N, 3072) of each file, and its labels (N,) of each kind."""

    folder: Path
    pixels: dict[str, np.ndarray]
    labels: dict[str, dict[str, np.ndarray]]


def make_content(layout, folder):
    rng = np.random.default_rng(len(layout.name))
    content = Content(folder, {}, {})
    for split, files in layout.files.items():
        for file in files:
            count = RECORDS[split]
            content.pixels[file] = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
            content.labels[file] = {
                kind.name: (np.arange(count) + rng.integers(kind.classes)) % kind.classes for kind in layout.label_kinds
            }
    folder.mkdir(parents=True)
    return content


@pytest.fixture(autouse=True)
def small_layouts(monkeypatch):
    """Let the readers expect few records a file."""
    for name, layout in cifar.LAYOUTS.items():
        monkeypatch.setitem(cifar.LAYOUTS, name, replace(layout, records=RECORDS))


@pytest.fixture
def write_binary():
    """Write a small data set in the binary layout under a root, and return its content."""

    def write(name, root):
        layout = cifar.LAYOUTS[name]
        content = make_content(layout, Path(root) / layout.binary_folder)
        for file, pixels in content.pixels.items():
            columns = [content.labels[file][kind.name] for kind in layout.label_kinds]
            table = np.column_stack([*columns, pixels]).astype(np.uint8)
            (content.folder / f"{file}.bin").write_bytes(table.tobytes())
        for kind in layout.label_kinds:
            (content.folder / kind.names_file).write_text("\n".join(NAMES[kind.name]) + "\n\n")
        return content

    return write


@pytest.fixture
def write_python():
    """Write a small data set in the Python layout under a root, and return its content."""

    def write(name, root):
        layout = cifar.LAYOUTS[name]
        content = make_content(layout, Path(root) / layout.python_folder)
        for file, pixels in content.pixels.items():
            written = {b"data": pixels}
            for kind in layout.label_kinds:
                written[kind.labels_key] = content.labels[file][kind.name].tolist()
            (content.folder / file).write_bytes(pickle.dumps(written, protocol=2))
        names = {kind.names_key: [name.encode() for name in NAMES[kind.name]] for kind in layout.label_kinds}
        (content.folder / layout.meta_file).write_bytes(pickle.dumps(names, protocol=2))
        return content

    return write


@pytest.fixture
def write(request, write_binary, write_python):
    """Write a small data set in the layout that the test parameter names."""
    return {"binary": write_binary, "python": write_python}[request.param]


@pytest.fixture
def refusal():
    """Return the one-line message of the `DataError` that a call raises."""

    def message(call, *arguments, **options):
        with pytest.raises(DataError) as caught:
            call(*arguments, **options)
        text = str(caught.value)
        assert "\n" not in text
        return text

    return message


def pack(source, name, extra=None):
    """Return a tar.gz archive that contains the folder `source` as `name`, and one extra member."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(source, arcname=name)
        if extra is not None:
            tar.addfile(extra)
    return buffer.getvalue()


@pytest.fixture
def server(monkeypatch):
    """A server that counts requests; a test sets its `body`, `status` and headers."""
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
    """The server with a small CIFAR-10 in place of the official archive; `publish` changes the archive."""

    def publish(name, body=None):
        if body is None:
            content = write_binary(name, tmp_path / f"source-{name}")
            body = pack(content.folder, content.folder.name)
        server.body = body
        monkeypatch.setitem(archives.ARCHIVES, name, archives.Archive(server.url, hashlib.md5(body).hexdigest()))

    publish("cifar10")
    server.publish, server.pack = publish, pack
    return server


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"
