"""Writing files so that a failure never destroys what was there."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from maam.errors import DeploymentError

fcntl: Any = import_module("fcntl") if os.name == "posix" else None


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on success it takes the place of `path`, else it goes.

    The data is on the disk before the rename, so that a reader finds the old file or the new one, whole. A link stays
    one, and what it leads to is replaced; what `is_special` is written to.

    Raises:
        OSError: the folder does not exist or cannot be written, or the disk is full.
    """
    if is_special(Path(path)):
        with _written_to(Path(path)) as temporary:
            yield temporary
        return
    target = Path(os.path.realpath(path))
    handle, name = tempfile.mkstemp(prefix=f".{_shortened(target.name)}.", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        temporary.chmod(mode_of(target))
        temporary.replace(target)
        _flush(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def is_special(path: Path) -> bool:
    """Whether a path is there that nothing may take the place of: a device, a pipe, /dev/stdout wherever it goes.

    Files below /dev/shm are ordinary ones, in memory.
    """
    if path.is_dir() or not path.exists():
        return False
    place = path.absolute().parts
    return not path.is_file() or (place[:2] == ("/", "dev") and place[:3] != ("/", "dev", "shm"))


@contextlib.contextmanager
def _written_to(target: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / f"written{target.suffix}"
        yield temporary
        with target.open("ab") as file:
            file.write(temporary.read_bytes())


def hold(folder: Path) -> Callable[[], None]:
    """Keep everybody else from holding `folder`, until this process ends or the function that is returned is called.

    On a system or a disk that knows no such locks nobody is kept from anything.

    Raises:
        BlockingIOError: it is held.
    """
    if fcntl is None:
        return lambda: None
    handle = os.open(folder, os.O_RDONLY)
    closing = [handle]  # a process that is forked closes its own, or it would go on holding the folder

    def release() -> None:
        if closing:
            os.close(closing.pop())

    os.register_at_fork(after_in_child=release)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        release()
        raise
    except OSError:
        release()
    return release


def _shortened(name: str) -> str:
    """As much of a long name as leaves room for what is added to it: 255 bytes are what file systems take."""
    raw = os.fsencode(name)  # which need not be text
    return name if len(raw) <= 200 else raw[:100].decode(errors="ignore")


def leftover_of(name: str) -> str | None:
    """The name of the file that a temporary one of `replacing`, left by a process that was killed, was to become.

    None where `name` is none of a temporary file.
    """
    found = re.fullmatch(r"\.(.+)\.[a-z0-9_]{8}(\.\w+)?", name)
    if found is None or Path(found[1]).suffix != (found[2] or ""):
        return None
    return found[1]


def check_target(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Refuse, before anything is computed, a file that could not be written, or that is there and may be wanted.

    Raises:
        DeploymentError: the folder does not exist or may not be written, `path` is a folder, or it exists and
            `overwrite` is False.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise DeploymentError(f"{target}: there is no folder {target.parent}; make it first")
    if target.is_dir():
        raise DeploymentError(f"{target}: a folder; give a file")
    if target.exists() and not overwrite:
        raise DeploymentError(f"{target}: exists; give another name, or pass overwrite (--overwrite) to replace it")
    if not os.access(target.parent, os.W_OK):
        raise DeploymentError(f"{target}: the folder {target.parent} may not be written")


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` in one step. Raises OSError where that cannot be."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` in UTF-8, in one step. Raises OSError where that cannot be.

    What is no text, as bytes in the name of a file or in an argument may be, is written as escapes (backslashes).
    """
    write_bytes(path, text.encode(errors="backslashreplace"))


def mode_of(target: Path) -> int:
    """The permissions of the file at `target`; where there is none, those of the user's new files."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
