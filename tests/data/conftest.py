"""Small data sets in the official layouts, written by hand, so that the readers can be compared with them."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from maam.data import layouts

OFFICIAL_RECORDS = {name: layout.records for name, layout in layouts.LAYOUTS.items()}
RECORDS = {"train": 12, "test": 10}
NAMES = {
    "class": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "coarse": [f"coarse {number}" for number in range(20)],
    "fine": [f"fine {number}" for number in range(100)],
}


@dataclass
class Content:
    """What was written: for each file, its pixels (N, 3072) and its labels of each kind (N,)."""

    folder: Path
    pixels: dict[str, np.ndarray]
    labels: dict[str, dict[str, np.ndarray]]


def _make(layout, folder):
    rng = np.random.default_rng(len(layout.name))
    content = Content(folder, {}, {})
    for split, files in layout.files.items():
        for file in files:
            count = RECORDS[split]
            content.pixels[file] = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
            content.labels[file] = {
                kind.name: (np.arange(count) + rng.integers(kind.classes)) % kind.classes
                for kind in layout.label_kinds
            }
    folder.mkdir(parents=True)
    return content


@pytest.fixture(autouse=True)
def _small_layouts(monkeypatch):
    for name, layout in layouts.LAYOUTS.items():
        monkeypatch.setitem(layouts.LAYOUTS, name, replace(layout, records=RECORDS))


@pytest.fixture
def official_records():
    """The records a file that the readers expect outside these tests, by data set and split."""
    return OFFICIAL_RECORDS


@pytest.fixture
def write_binary():
    """Write a small data set in the binary layout under a root, and return its content."""

    def write(name, root):
        layout = layouts.LAYOUTS[name]
        content = _make(layout, Path(root) / layout.binary_folder)
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
        layout = layouts.LAYOUTS[name]
        content = _make(layout, Path(root) / layout.python_folder)
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
    """Write a small data set in the layout that the test's parameter names."""
    return {"binary": write_binary, "python": write_python}[request.param]
