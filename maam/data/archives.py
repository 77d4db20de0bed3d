"""Downloads of the official binary archives, with progress, a checksum and safe unpacking."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import shutil
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from maam import _io
from maam._messages import one_line, raw_stream
from maam.data.checks import check_choice
from maam.data.cifar import BINARY_SUFFIX, LAYOUTS, PIXELS, Layout, find_folder, read_dataset
from maam.errors import DataError

Report = Callable[[int, "int | None"], None]
"""A function that is called with the number of bytes received so far and in total (None if unknown)."""

TIMEOUT_SECONDS = 30.0
LIMIT_SECONDS = 3600.0
"""The longest time without data, and the longest time of a whole download."""
_CHUNK_BYTES = 1 << 18
_MOST_MEMBERS = 100
_MOST_HEADER_BYTES = 1 << 20


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

    The archive is checked before it is unpacked, and the folder appears only after all files have been checked. Only
    the files of the data set are unpacked. A damaged folder with the same name is kept under a new name that ends in
    ".damaged". If another process downloads into `root`, the call waits for it.

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
    with Progress(*columns, console=Console(file=raw_stream(sys.stderr))) as bar:
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
    release = _io.hold(root, wait=True)
    try:
        for leftover in root.glob(f".{layout.name}-*"):  # of a process that was killed while it unpacked
            shutil.rmtree(leftover, ignore_errors=True)
        if _is_whole(layout, root):  # another process was faster
            return find_folder(layout, root)[0]
        with tempfile.TemporaryFile(dir=root) as packed:  # has no name, so a killed process leaves nothing
            with show_progress(layout.name) if progress is None else nullcontext(progress) as report:
                _fetch(archive, packed, report, _most_bytes(layout))
            packed.seek(0)
            with tempfile.TemporaryDirectory(dir=root, prefix=f".{layout.name}-") as scratch:
                unpacked = Path(scratch, layout.binary_folder)
                _unpack(layout, archive, packed, unpacked)
                if not _is_whole(layout, unpacked):
                    raise DataError(f"{archive.url}: contains no complete {layout.binary_folder}; try another url")
                return _move(unpacked, root / layout.binary_folder)
    finally:
        release()


def _most_bytes(layout: Layout) -> int:
    """Return a limit for an archive and its content: twice the bytes of all images, and room for other files."""
    records = sum(layout.records[split] * len(files) for split, files in layout.files.items())
    return 2 * records * PIXELS + (10 << 20)


def _fetch(archive: Archive, target: IO[bytes], report: Report, most: int) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    done, total = 0, None
    end = time.monotonic() + LIMIT_SECONDS
    for chunk, total in _read_chunks(archive.url):
        digest.update(chunk)
        target.write(chunk)
        done += len(chunk)
        report(done, total)
        if max(done, total or 0) > most:
            raise DataError(f"{archive.url}: more than {most} bytes; this is not the archive; try another url")
        if time.monotonic() > end:
            raise DataError(
                f"{archive.url}: received only {done} bytes in {LIMIT_SECONDS:.0f} seconds; try another url, or "
                "download the archive by other means and give its url as file:///PATH"
            )
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
            while chunk := response.read1(_CHUNK_BYTES):  # what has arrived, so that the time is checked
                yield chunk, None if length is None else int(length)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it keeps the connection open
        raise DataError(
            f"{url}: cannot be downloaded ({one_line(error)}); check the network and the url, then try again"
        ) from error


class _BoundedGzip(gzip.GzipFile):
    """A gzip file that refuses to read or skip more than the archive of a data set needs."""

    most = 0

    def read(self, size: int | None = -1) -> bytes:
        """Return at most `size` bytes."""
        if size is None or not 0 <= size <= _MOST_HEADER_BYTES:
            raise tarfile.ReadError("a header is too large")
        return super().read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position."""
        if offset > self.most:
            raise tarfile.ReadError(f"it unpacks to more than {self.most} bytes")
        return super().seek(offset, whence)


def _unpack(layout: Layout, archive: Archive, packed: IO[bytes], target: Path) -> None:
    """Write the files of the data set, found by their names, to the folder `target`; ignore all other members."""
    files = [f"{file}{BINARY_SUFFIX}" for names in layout.files.values() for file in names]
    wanted = {f"{layout.binary_folder}/{name}" for name in [*files, *(kind.names_file for kind in layout.label_kinds)]}
    target.mkdir()
    try:
        with _BoundedGzip(fileobj=packed) as unzipped:
            unzipped.most = _most_bytes(layout)
            with tarfile.open(fileobj=unzipped, mode="r:") as tar:
                for count, member in enumerate(tar, 1):
                    if count > _MOST_MEMBERS:
                        raise DataError(f"{archive.url}: more than {_MOST_MEMBERS} files; try another url")
                    if member.name.removeprefix("./") in wanted and member.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                        content = tar.extractfile(member)
                        assert content is not None
                        with (target / Path(member.name).name).open("wb") as file:
                            shutil.copyfileobj(content, file, _CHUNK_BYTES)
    except DataError:
        raise
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, RecursionError, ValueError) as error:
        raise DataError(f"{archive.url}: not a valid tar.gz archive ({one_line(error)}); try another url") from error


def _move(source: Path, target: Path) -> Path:
    """Rename `source` to `target`, after renaming a damaged `target`."""
    if os.path.lexists(target):
        aside, number = target.with_name(f"{target.name}.damaged"), 1
        while os.path.lexists(aside):
            number += 1
            aside = target.with_name(f"{target.name}-{number}.damaged")
        target.rename(aside)
    return source.rename(target)
