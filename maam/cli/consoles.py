"""Where commands print."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich import progress
from rich.console import Console

Item = TypeVar("Item")
_WIDTH_OF_FILES = 200
SECONDS = 60.0
"""Between two plain lines of progress."""


def console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for every table where it is no terminal."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH_OF_FILES
    return Console(width=width)


def track(items: Iterable[Item], name: str, count: int) -> Iterator[Item]:
    """Yield the items: with a progress bar on standard error where that is a terminal, a line each minute elsewhere."""
    log = Console(stderr=True)
    if log.is_terminal:
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
    """Keep MindSpore, where it is imported within, from printing pages and leaving folders for what parity reports.

    A graph without a kernel on this device is an error in its log, and is dumped into `rank_0` of the working folder.
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
