"""Where commands print."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

_WIDTH_OF_FILES = 200


def console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for every table where it is no terminal."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH_OF_FILES
    return Console(width=width)


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
