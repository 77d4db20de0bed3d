"""Reads the files of the official binary layout: label bytes, then the red, green and blue plane."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maam.data.layouts import (
    BINARY_SUFFIX,
    PIXELS,
    LabelKind,
    Layout,
    Records,
    check_file,
    check_labels,
    check_names,
    damage,
)


def read_records(layout: Layout, folder: Path, split: str, file: str) -> Records:
    """Return the records of `file`; raise `DataError` unless its size and labels are as published."""
    path = folder / f"{file}{BINARY_SUFFIX}"
    check_file(layout, path)
    width = len(layout.label_kinds) + PIXELS
    count = layout.records[split]
    # The size is compared before reading, so that a huge file is refused without filling the memory.
    size = path.stat().st_size
    if size != count * width:
        expected = f"{count * width} bytes ({count} records of {width})"
        raise damage(layout, path, f"{size} bytes", expected)
    table = np.fromfile(path, dtype=np.uint8, count=count * width).reshape(count, width)
    labels = {
        kind.name: check_labels(layout, path, kind, table[:, column].tolist())
        for column, kind in enumerate(layout.label_kinds)
    }
    return Records(table[:, len(labels) :], labels)


def read_names(layout: Layout, folder: Path, kind: LabelKind) -> tuple[str, ...]:
    """Return the class names of `kind`; raise `DataError` unless there is one for each class."""
    path = folder / kind.names_file
    check_file(layout, path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise damage(layout, path, "not text", f"{kind.classes} class names") from None
    return check_names(layout, path, kind, [line.strip() for line in lines if line.strip()])
