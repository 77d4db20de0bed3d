"""What the shell offers for arguments (`maam --install-completion`): names that maam itself knows, never a framework's.

Where nothing fits, the shell goes on with the names of files.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar, get_args

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


Complete = Callable[[str], list[str]]


def complete(*sources: str, several: bool = False) -> Complete:
    """A function from what was typed to the names that begin so; with `several`, of a comma-separated list's last.

    A source is "module:attribute", looked up when the shell asks: a name, a collection of names, a Literal of them,
    or a function that returns them.
    """

    def offer(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        given = before.split(",")
        names = [name for source in sources for name in _look_up(source) if " " not in name]  # which ends the word
        return [f"{before}{comma}{name}" for name in names if name.startswith(last) and name not in given]

    return offer


def _look_up(source: str) -> list[str]:
    module, _, attribute = source.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if isinstance(found, str):
        return [found]
    return list(get_args(found) or (found() if callable(found) else found))


_PRESETS = "maam.spec:list_presets"
_FRAMEWORKS = "maam.backend.registry:trainable_names"
_BACKENDS = "maam.backend.registry:backend_names"
_PRECISIONS = "maam.training.recipe:Precision"
presets = complete(_PRESETS)
several_presets = complete(_PRESETS, several=True)
recipes = complete("maam.training.recipe_files:list_recipes")
frameworks = complete(_FRAMEWORKS)
several_frameworks = complete(_FRAMEWORKS, several=True)
backends = complete(_BACKENDS)
several_backends = complete(_BACKENDS, several=True)
devices = complete("maam.backend.devices:DEVICES")
data_sets = complete("maam.training.recipe:DataName")
image_sets = complete("maam.cli.predict:NAMES")
archives = complete("maam.data.archives:ARCHIVES")
precisions = complete(_PRECISIONS)
several_precisions = complete(_PRECISIONS, several=True)
stages = complete("maam.parity:STAGES", several=True)
formats = complete("maam.deploy:FORMATS")
