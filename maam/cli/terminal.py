"""Output of commands: tables on standard output, progress on standard error, and MindSpore's own messages."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.segment import Segment

from maam._messages import printable, raw_stream

Item = TypeVar("Item")
SECONDS = 60.0
"""The time between two lines of progress if standard error is not a terminal."""
_WIDTH_OF_FILES = 200


class SafeConsole(Console):
    """A console that prints control characters in texts as escapes; only rich itself controls the terminal."""

    def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:
        """Yield the segments of an object."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def console(*, stderr: bool = False) -> Console:
    """Return a console on standard output: as wide as the terminal, or wide enough for every table in a file or pipe.

    Names of layers and files can contain anything, so texts have no markup, such as [red] or :smile:.

    Args:
        stderr: whether to return standard error instead.
    """
    stream = raw_stream(sys.stderr if stderr else sys.stdout)
    width = None if stderr else shutil.get_terminal_size().columns if stream.isatty() else _WIDTH_OF_FILES
    return SafeConsole(file=stream, width=width, markup=False, emoji=False, highlight=False)


class _SafeStream:
    """A text stream that writes control characters as escapes. Consoles of rich write to `raw_stream` of it."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        """Write a text."""
        return self.rich_proxied_file.write(printable(text))

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def protect() -> None:
    """Let nothing but rich control the terminal, and give closed standard streams a place to write to."""
    for number in range(3):  # otherwise the next file that is opened would receive what is printed
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names can have bytes that are not UTF-8
            stream = _SafeStream(stream)
        setattr(sys, name, stream)


def track(items: Iterable[Item], name: str, count: int) -> Iterator[Item]:
    """Yield the items, with a progress bar on a terminal and one line a minute elsewhere, on standard error."""
    log = console(stderr=True)
    if log.is_terminal:
        from rich import progress

        yield from progress.track(items, escape(name), count, console=log, transient=True)
        return
    last = time.monotonic()
    for index, item in enumerate(items):
        if (now := time.monotonic()) - last >= SECONDS:
            last = now
            log.print(f"{name}: {index / count:.0%}")
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
