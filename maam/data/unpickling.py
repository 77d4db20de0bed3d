"""Loads pickled numpy arrays, lists and dicts without letting the file run code."""

from __future__ import annotations

import _codecs
import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

import numpy as np

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
