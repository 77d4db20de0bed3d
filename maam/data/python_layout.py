"""Reads the files of the official Python layout: pickled dicts with byte-string keys."""

from __future__ import annotations

import _codecs
import io
import pickle
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

import numpy as np

from maam.data.layouts import PIXELS, LabelKind, Layout, Records, check_file, check_labels, check_names, damage
from maam.errors import DataError

_reconstruct: Any = np.empty(0).__reduce__()[0]

# Built-in callables only: a pickle could set attributes on a function that is written in Python.
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _codecs.encode,
}


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that knows only the names with which numpy writes an array."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the admitted object called `module`.`name`; raise `UnpicklingError` on any other."""
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None


def load_pickle(path: Path, error: Callable[[str], DataError]) -> Any:
    """Return the object in the pickle file `path`, with the strings of Python 2 as bytes.

    Args:
        path: an existing file.
        error: makes the error to raise from a sentence that says what was found.

    Raises:
        DataError: made by `error`; the file is cut short, is no pickle, or names anything but numpy arrays.
    """
    content = io.BytesIO(path.read_bytes())
    with warnings.catch_warnings():
        # numpy 2.4.0 to 2.4.4 warn about the way in which numpy of Python 2 wrote a dtype.
        warnings.simplefilter("ignore")
        try:
            return _ArrayUnpickler(content, encoding="bytes").load()
        except Exception as problem:  # a malformed pickle can make the unpickler raise almost anything
            found = f"no harmless whole pickle ({type(problem).__name__}: {short_repr(str(problem))})"
            raise error(found) from None


def read_records(layout: Layout, folder: Path, split: str, file: str) -> Records:
    """Return the records of `file`; raise `DataError` unless its arrays and labels are as published."""
    path = folder / file
    content = _load_dict(layout, path)
    count = layout.records[split]
    pixels = content.get(b"data")
    found = f"data is {_describe(pixels)}"
    if not (isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.shape == (count, PIXELS)):
        raise damage(layout, path, found, f"uint8 {(count, PIXELS)}")
    labels = {}
    for kind in layout.label_kinds:
        values = _list(layout, path, content, kind.labels_key, count)
        labels[kind.name] = check_labels(layout, path, kind, values)
    return Records(pixels, labels)


def read_names(layout: Layout, folder: Path, kind: LabelKind) -> tuple[str, ...]:
    """Return the class names of `kind`; raise `DataError` unless there is one for each class."""
    path = folder / layout.meta_file
    values = _list(layout, path, _load_dict(layout, path), kind.names_key, kind.classes)
    if not all(isinstance(value, bytes) and value.isascii() for value in values):
        raise damage(layout, path, "class names that are not text", f"{kind.classes} byte strings")
    return check_names(layout, path, kind, [value.decode("ascii") for value in values])


def _load_dict(layout: Layout, path: Path) -> dict[Any, Any]:
    check_file(layout, path)
    expected = "a pickled dict of numpy arrays and lists"
    content = load_pickle(path, partial(damage, layout, path, expected=expected))
    if not isinstance(content, dict):
        raise damage(layout, path, f"a pickled {type(content).__name__}", expected)
    return content


def _list(layout: Layout, path: Path, content: dict[Any, Any], key: bytes, count: int) -> list[Any]:
    values = content.get(key)
    if not (isinstance(values, list) and len(values) == count):
        raise damage(layout, path, f"{key.decode()} is {_describe(values)}", f"a list of {count}")
    return values


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "missing" if value is None else f"a {type(value).__name__}"
