"""Where commands print."""

from __future__ import annotations

import shutil
import sys

from rich.console import Console

_WIDTH_OF_FILES = 200


def console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for every table where it is no terminal."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH_OF_FILES
    return Console(width=width)
