"""Downloads the official binary archives."""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from maam.data.cifar import read_dataset
from maam.data.layouts import LAYOUTS, Layout, find_folder
from maam.errors import DataError

Report = Callable[[int, "int | None"], None]
"""Called with the bytes that have come and the bytes in all, None where the server does not say."""


@contextmanager
def show_progress(title: str) -> Iterator[Report]:
    """Yield a function that shows progress on standard error: a bar on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield _TenthLines(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _TenthLines:
    """Prints a line at each tenth of the way; nothing where the whole size is unknown."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.tenths = 0

    def __call__(self, done: int, total: int | None) -> None:
        tenths = 10 * done // total if total else 0
        if tenths > self.tenths:
            self.tenths = tenths
            print(f"{self.title}: {10 * tenths} %", file=sys.stderr, flush=True)


TIMEOUT_SECONDS = 30.0
_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class Archive:
    """Where an official archive is, and its MD5 checksum in hexadecimal."""

    url: str
    md5: str


ARCHIVES = {
    "cifar10": Archive("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
    "cifar100": Archive("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
}


def download(
    name: str,
    root: str | os.PathLike[str],
    *,
    url: str | None = None,
    md5: str | None = None,
    progress: Report | None = None,
) -> Path:
    """Download a data set in its official binary layout, unless `root` already holds it whole.

    The archive is checked before it is unpacked, and the folder appears only when all of it is right. A
    damaged folder that is in the way is kept under a new name that ends in ".damaged".

    Args:
        name: "cifar10" or "cifar100".
        root: the folder that shall contain the official folder; it is made where it is missing.
        url: another place of the archive.
        md5: another checksum of the archive.
        progress: called with the bytes that have come, and the bytes in all or None; by default a bar on a
            terminal and lines elsewhere, on standard error.

    Returns:
        The official folder.

    Raises:
        DataError: the name is unknown, the download fails, the archive is not the right one, or the disk
            refuses it.
    """
    if name not in ARCHIVES:
        raise DataError(f"name is {name!r}; expected {' or '.join(map(repr, ARCHIVES))}")
    official = ARCHIVES[name]
    archive = Archive(url or official.url, (md5 or official.md5).lower())
    layout, folder = LAYOUTS[name], Path(root)
    if _is_whole(layout, folder):
        return find_folder(layout, folder)[0]
    _check_python()
    try:
        return _install(layout, archive, folder, progress)
    except OSError as error:
        raise DataError(f"{root}: cannot store {name} ({error}); check permissions and free space") from error


def _is_whole(layout: Layout, root: Path) -> bool:
    try:
        for split in layout.files:
            for kind in layout.label_kinds:
                read_dataset(layout.name, root, split, kind.name)
    except DataError:
        return False
    return True


def _install(layout: Layout, archive: Archive, root: Path, progress: Report | None) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=f".{layout.name}-") as scratch:
        packed, unpacked = Path(scratch, "archive.tar.gz"), Path(scratch, "unpacked")
        with show_progress(layout.name) if progress is None else nullcontext(progress) as report:
            _fetch(archive, packed, report)
        _unpack(archive, packed, unpacked)
        if not _is_whole(layout, unpacked / layout.binary_folder):
            raise DataError(f"{archive.url}: holds no whole {layout.binary_folder}; try another url")
        return _move(unpacked / layout.binary_folder, root / layout.binary_folder)


def _fetch(archive: Archive, target: Path, report: Report) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    done, total = 0, None
    with target.open("wb") as file:
        for chunk, total in _read_chunks(archive.url):
            digest.update(chunk)
            file.write(chunk)
            done += len(chunk)
            report(done, total)
    if total is not None and done != total:
        raise DataError(f"{archive.url}: the download ended after {done} of {total} bytes; try again")
    if digest.hexdigest() != archive.md5:
        found = f"MD5 checksum is {digest.hexdigest()} ({done} bytes)"
        raise DataError(f"{archive.url}: {found}; expected {archive.md5}; try again or try another url")


def _read_chunks(url: str) -> Iterator[tuple[bytes, int | None]]:
    """Yield the bytes at `url` in chunks, each with the size of all, or None."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            length = response.headers.get("Content-Length")
            while chunk := response.read(_CHUNK_BYTES):
                yield chunk, None if length is None else int(length)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the open answer of the server
        advice = "check the network and the url, then try again"
        raise DataError(f"{url}: cannot be downloaded ({_one_line(error)}); {advice}") from error


def _check_python() -> None:
    """Refuse a Python that cannot unpack archives of strangers safely, before one is downloaded.

    Raises:
        DataError: it is older than 3.10.12 or 3.11.4.
    """
    if not hasattr(tarfile, "data_filter"):
        raise DataError("this Python's tarfile unpacks archives unsafely; update it to 3.10.12, 3.11.4, 3.12 or later")


def _unpack(archive: Archive, packed: Path, target: Path) -> None:
    try:
        with tarfile.open(packed, "r:gz") as tar:
            tar.extractall(target, filter="data")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        found = f"is no sound tar.gz archive ({_one_line(error)})"
        raise DataError(f"{archive.url}: {found}; try another url") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _move(source: Path, target: Path) -> Path:
    """Rename `source` to `target`, after a damaged `target` has been put aside."""
    if os.path.lexists(target):
        aside, number = target.with_name(f"{target.name}.damaged"), 1
        while os.path.lexists(aside):
            number += 1
            aside = target.with_name(f"{target.name}-{number}.damaged")
        target.rename(aside)
    return source.rename(target)
