"""Export of models as MindIR, and as AIR on a machine with Ascend."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

from maam.backend.engines import read_companion, write_companion
from maam.backend.protocol import Predict
from maam.errors import DeploymentError
from maam.mindspore.arrays import from_numpy, to_numpy, write_arrays
from maam.mindspore.configuration import preserve_mode
from maam.mindspore.devices import select_device
from maam.mindspore.weights import build
from maam.spec import Node

Array = np.ndarray[Any, Any]
_PLAIN = re.compile(r"[0-9A-Za-z@_\-.:/\\]+")
"""The paths that MindSpore accepts, even on systems that allow others."""
_RUNNING_CODE = (b"PyExecute", b"PyInterpret", b"PyFunc", b"Custom")
"""Operators that evaluate Python or load a library; no file of maam contains them."""


def write_mindir(path: Path, spec: Node, arrays: Mapping[str, Array], shape: Any, metadata: dict[str, str]) -> None:
    """Write a MindIR file, which MindSpore Lite and Ascend convert, and its metadata beside it."""
    _write(path, spec, arrays, ms.Tensor(shape=(None, *shape), dtype=ms.float32), "MINDIR", metadata)


def write_air(path: Path, spec: Node, arrays: Mapping[str, Array], shape: Any, metadata: dict[str, str]) -> None:
    """Write an AIR file for Ascend's compiler `atc`, for a batch of 1; not tested on hardware.

    Raises:
        DeviceError: Ascend is not available.
    """
    select_device("ascend")
    _write(path, spec, arrays, from_numpy(np.zeros((1, *shape), np.float32)), "AIR", metadata)


def _write(path: Path, spec: Node, arrays: Mapping[str, Array], example: Any, kind: str, metadata: Any) -> None:
    model = build(spec)
    write_arrays(model, arrays)
    with _plain_folder() as folder:
        plain = folder / f"model{path.suffix}"
        with preserve_mode():
            ms.export(model, example, file_name=str(plain), file_format=kind)
        shutil.move(plain, path)
    write_companion(path, metadata)


def open_mindir(path: Path, trusted: bool = False) -> tuple[Predict, dict[str, str]]:
    """Open a MindIR file; return its function and its metadata. Without `trusted`, operators that run code are refused.

    Raises:
        DeploymentError: the file names such an operator.
    """
    content = path.read_bytes()
    if not trusted and (found := next((name for name in _RUNNING_CODE if name in content), None)):
        raise DeploymentError(
            f"{path}: the file names the operator {found.decode()}, which can run any code; open it with trusted=True "
            "if you trust its source"
        )
    metadata = read_companion(path)
    with _plain_folder() as folder:
        plain = folder / "model.mindir"
        shutil.copyfile(path, plain)
        cell = nn.GraphCell(ms.load(str(plain)))

    lock = threading.Lock()  # MindSpore gives wrong outputs if several threads run one cell

    def predict(x: Array) -> Array:
        with lock, preserve_mode(ms.GRAPH_MODE):
            return to_numpy(cell(from_numpy(np.asarray(x, np.float32))))

    return predict, metadata


@contextlib.contextmanager
def _plain_folder() -> Iterator[Path]:
    """Create a temporary folder whose path has only characters that MindSpore accepts in the names of files.

    Raises:
        DeploymentError: there is no such folder.
    """
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if _PLAIN.fullmatch(parent) and os.access(parent, os.W_OK):
            with tempfile.TemporaryDirectory(prefix="maam-", dir=parent) as folder:
                yield Path(folder)
            return
    raise DeploymentError(
        f"MindSpore needs a temporary folder whose path has only letters, digits and the characters @ _ - . : /, got "
        f"{tempfile.gettempdir()}; set the environment variable TMPDIR to one"
    )


WRITERS = {"mindir": write_mindir, "air": write_air}
READERS = {"mindir": open_mindir}
"""The functions that write and open files, by format; AIR files cannot be opened here."""
