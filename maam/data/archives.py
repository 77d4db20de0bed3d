"""Downloads of the official binary archives, with progress, a checksum and safe unpacking."""

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

from maam.data.checks import check_choice
from maam.data.cifar import LAYOUTS, Layout, find_folder, read_dataset
from maam.errors import DataError

Report = Callable[[int, "int | None"], None]
"""A function that is called with the number of bytes received so far and in total (None if unknown)."""

TIMEOUT_SECONDS = 30.0
_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class Archive:
    """The address of an official archive and its MD5 checksum in hexadecimal."""

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
    """Download a data set in its official binary layout, unless `root` already contains it undamaged.

    The archive is checked before it is unpacked, and the folder appears only after all files have been checked. A
    damaged folder with the same name is kept under a new name that ends in ".damaged".

    Args:
        name: "cifar10" or "cifar100".
        root: the folder that will contain the official folder. It is created if it is missing.
        url: another address of the archive.
        md5: another checksum of the archive.
        progress: a function that is called with the number of bytes received so far and in total (None if unknown).
            Default: a progress bar on a terminal, and lines elsewhere, on standard error.

    Returns:
        The official folder.

    Raises:
        DataError: the name is unknown, the download fails, the archive has another checksum or content, or the files
            cannot be stored.

    Example:
        >>> from maam.data import download
        >>> download("cifar10", "data")  # doctest: +SKIP
        PosixPath('data/cifar-10-batches-bin')
    """
    check_choice("name", name, tuple(ARCHIVES))
    official = ARCHIVES[name]
    archive = Archive(url or official.url, (md5 or official.md5).lower())
    layout, folder = LAYOUTS[name], Path(root)
    if _is_whole(layout, folder):
        return find_folder(layout, folder)[0]
    if not hasattr(tarfile, "data_filter"):
        raise DataError(
            "the tarfile module of this Python cannot unpack archives safely; "
            "update Python to 3.10.12, 3.11.4, 3.12 or later"
        )
    try:
        return _install(layout, archive, folder, progress)
    except OSError as error:
        raise DataError(f"{root}: cannot store {name} ({error}); check permissions and free space") from error


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
    """A report that prints a line at each tenth of the download, and nothing if its size is unknown."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.tenths = 0

    def __call__(self, done: int, total: int | None) -> None:
        tenths = 10 * done // total if total else 0
        if tenths > self.tenths:
            self.tenths = tenths
            print(f"{self.title}: {10 * tenths} %", file=sys.stderr, flush=True)


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
            raise DataError(f"{archive.url}: contains no complete {layout.binary_folder}; try another url")
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
        raise DataError(
            f"{archive.url}: MD5 checksum is {digest.hexdigest()} ({done} bytes); expected {archive.md5}; "
            "try again or try another url"
        )


def _read_chunks(url: str) -> Iterator[tuple[bytes, int | None]]:
    """Yield the bytes at `url` in chunks, each with the number of all bytes, or None if it is unknown."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            length = response.headers.get("Content-Length")
            while chunk := response.read(_CHUNK_BYTES):
                yield chunk, None if length is None else int(length)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it keeps the connection open
        raise DataError(
            f"{url}: cannot be downloaded ({_one_line(error)}); check the network and the url, then try again"
        ) from error


def _unpack(archive: Archive, packed: Path, target: Path) -> None:
    try:
        with tarfile.open(packed, "r:gz") as tar:
            tar.extractall(target, filter="data")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{archive.url}: not a valid tar.gz archive ({_one_line(error)}); try another url") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _move(source: Path, target: Path) -> Path:
    """Rename `source` to `target`, after renaming a damaged `target`."""
    if os.path.lexists(target):
        aside, number = target.with_name(f"{target.name}.damaged"), 1
        while os.path.lexists(aside):
            number += 1
            aside = target.with_name(f"{target.name}-{number}.damaged")
        target.rename(aside)
    return source.rename(target)
