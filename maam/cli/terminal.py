"""Output of commands: tables on standard output, progress on standard error, and MindSpore's own messages."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console

Item = TypeVar("Item")
SECONDS = 60.0
"""The time between two lines of progress if standard error is not a terminal."""
_WIDTH_OF_FILES = 200


def console() -> Console:
    """Return standard output; it is as wide as the terminal, or wide enough for every table in a file or pipe."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH_OF_FILES
    return Console(width=width)


def track(items: Iterable[Item], name: str, count: int) -> Iterator[Item]:
    """Yield the items, with a progress bar on a terminal and one line a minute elsewhere, on standard error."""
    log = Console(stderr=True)
    if log.is_terminal:
        from rich import progress

        yield from progress.track(items, name, count, console=log, transient=True)
        return
    last = time.monotonic()
    for index, item in enumerate(items):
        if (now := time.monotonic()) - last >= SECONDS:
            last = now
            log.print(f"{name}: {index / count:.0%}", highlight=False, markup=False)
        yield item


@contextmanager
def quiet_mindspore() -> Iterator[None]:
    """Suppress MindSpore's log and the files that it writes for graphs without a kernel on this device.

    Parity reports such graphs itself. MindSpore must be imported inside the context.
    """
    os.environ.setdefault("GLOG_v", "4")
    if "MS_OM_PATH" in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MS_OM_PATH"] = folder
        try:
            yield
        finally:
            del os.environ["MS_OM_PATH"]
