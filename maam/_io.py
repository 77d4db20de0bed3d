"""Atomic writes, locks of folders, and checks of files to write."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from maam.errors import DeploymentError, MaamError

fcntl: Any = import_module("fcntl") if os.name == "posix" else None


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, which replaces `path` on success and is removed otherwise.

    The data is flushed to disk before the rename, so readers find the complete old or the complete new file. Symbolic
    links are preserved: their target is replaced. Devices and pipes are written directly.

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


def link(source: Path, target: Path) -> None:
    """Let `target` be another name of the file `source`, or a copy on file systems without hard links; atomic.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(target) as temporary:
        temporary.unlink()
        try:
            os.link(source.resolve(), temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading. A device could have no end, and a pipe without a writer would be waited for.

    Raises:
        OSError: the file cannot be read, or is a device or a pipe.
    """
    try:
        file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115
    except ValueError as error:  # a NUL character
        raise OSError(errno.EINVAL, str(error), os.fspath(path)) from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "expected a file, got a device or a pipe", os.fspath(path))
    return file


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_text(path: str | os.PathLike[str], most: int) -> str:
    """Return the UTF-8 text of a regular file of at most `most` bytes, without a byte order mark.

    Raises:
        OSError: the file cannot be read, or is larger, or is a device or a pipe.
        UnicodeDecodeError: it is not UTF-8.
    """
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"more than {most} bytes", os.fspath(path))
    return data.decode("utf-8-sig")


def is_special(path: Path) -> bool:
    """Return whether a path must not be replaced: a device, a pipe, or /dev/stdout even if it is a file.

    Files in /dev/shm are ordinary files in memory.
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


def hold(folder: Path, *, wait: bool = False) -> Callable[[], None]:
    """Lock a folder until the returned function is called or the process ends.

    Without support for locks in the operating or file system, it does nothing.

    Args:
        folder: the folder.
        wait: whether to wait until the folder is free.

    Raises:
        BlockingIOError: the folder is already locked, and `wait` is False.
    """
    if fcntl is None:
        return lambda: None
    handle = os.open(folder, os.O_RDONLY)
    closing = [handle]  # a forked process closes its copy; otherwise it would keep the lock

    def release() -> None:
        if closing:
            os.close(closing.pop())

    os.register_at_fork(after_in_child=release)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        release()
        raise
    except OSError:
        release()
    except BaseException:  # an interruption of the wait
        release()
        raise
    return release


def _shortened(name: str) -> str:
    """Return the start of a long name, because file names have at most 255 bytes."""
    raw = os.fsencode(name)  # names can be undecodable
    return name if len(raw) <= 200 else raw[:100].decode(errors="ignore")


def leftover_of(name: str) -> str | None:
    """Return the target's name for a temporary file of `replacing`, left by a killed process; None for other names."""
    found = re.fullmatch(r"\.(.+)\.[a-z0-9_]{8}(\.\w+)?", name)
    if found is None or Path(found[1]).suffix != (found[2] or ""):
        return None
    return found[1]


def check_target(path: str | os.PathLike[str], *, overwrite: bool = False, option: str = "") -> None:
    """Check that a file can be written, before a long computation.

    Args:
        path: the file.
        overwrite: whether the file may exist.
        option: the option that names the file, for the message.

    Raises:
        DeploymentError: the folder does not exist or is not writable, `path` is a folder, or it exists without
            `overwrite`.
    """
    target = Path(path)
    shown = f"{option} {target}".strip()
    if not target.parent.is_dir():
        raise DeploymentError(f"{shown}: the folder {target.parent} does not exist; create it first")
    if target.is_dir():
        raise DeploymentError(f"{shown}: expected a file, got a folder")
    if target.exists() and not overwrite:
        raise DeploymentError(
            f"{shown}: the file exists; use another name, or overwrite=True (--overwrite) to replace it"
        )
    if not os.access(target.parent, os.W_OK):
        raise DeploymentError(f"{shown}: the folder {target.parent} is not writable")


PICTURES = (".png", ".svg", ".pdf", ".eps", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
"""The suffixes of pictures that matplotlib writes, in lower or upper case."""


def check_picture(path: str | os.PathLike[str], option: str = "") -> None:
    """Check that the suffix of a picture is one of `PICTURES`, before a long computation.

    Args:
        path: the file.
        option: the option that names the file, for the message.

    Raises:
        MaamError: the suffix is missing or unknown.
    """
    target = Path(path)
    if target.suffix.lower() not in PICTURES:
        raise MaamError(f"{option} {target}: expected a file name that ends in {', '.join(PICTURES)}".strip())


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` atomically.

    Raises:
        OSError: the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` atomically, in UTF-8. Undecodable bytes are written as backslash escapes.

    Raises:
        OSError: the file cannot be written.
    """
    write_bytes(path, text.encode(errors="backslashreplace"))


def mode_of(target: Path) -> int:
    """Return the permissions of a file, or those of new files if it does not exist."""
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
