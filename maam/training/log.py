"""The log of a run: one JSON document a line."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from maam.errors import TrainingError
from maam.files import write_text

Record = dict[str, Any]
PathLike = str | os.PathLike[str]
_DIGITS = 7


class Log:
    """Appends records to a file; `sync` puts on the disk what a checkpoint must not be without.

    Where the file is not there, but one of its name and `.gz` is, as of a run that was published, that one is read.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)

    def append(self, record: Record) -> None:
        """Add one line.

        Raises:
            TrainingError: it cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(_rounded(record)) + "\n")
        except OSError as error:
            raise self._unwritten(error) from None

    def sync(self) -> None:
        """Wait until all lines are on the disk, so that not even a power cut leaves a checkpoint without them.

        Raises:
            TrainingError: they cannot be written.
        """
        try:
            with self.path.open("ab") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise self._unwritten(error) from None

    def records(self) -> list[Record]:
        """All records in the file, none where there is no file; a line that is none, as one cut short, does not count.

        Raises:
            TrainingError: it cannot be read.
        """
        packed = self.path.with_name(f"{self.path.name}.gz")
        try:
            if packed.exists() and not self.path.exists():
                content = gzip.decompress(packed.read_bytes())
            else:
                content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except (OSError, EOFError, zlib.error) as error:
            raise TrainingError(f"{self.path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
        return list(_parse(content.decode("utf-8", errors="replace").splitlines()))

    def rewind(self, step: int) -> None:
        """Drop the records of later steps than `step`: a resumed run writes them anew.

        Raises:
            TrainingError: the file cannot be read or written; it stays as it is.
        """
        kept = [record for record in self.records() if record["step"] <= step]
        try:
            write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))
        except OSError as error:
            raise self._unwritten(error) from None

    def _unwritten(self, error: OSError) -> TrainingError:
        return TrainingError(f"{self.path}: cannot be written: {error.strerror or error}; the checkpoints are intact")


def _parse(lines: Sequence[str]) -> Iterator[Record]:
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("kind"), str) and isinstance(record.get("step"), int):
            yield record


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value
