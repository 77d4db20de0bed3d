"""The folder of a run."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maam import _io
from maam._io import leftover_of, write_text
from maam.errors import RecipeError, TrainingError, WeightsError
from maam.spec import Node
from maam.training.checkpoint import Checkpoint, read_checkpoint
from maam.training.recipe import Recipe
from maam.weights import write_weights

PathLike = str | os.PathLike[str]
Record = dict[str, Any]
"""A line of the log, by field."""
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


Array = np.ndarray[Any, Any]

WRITTEN = (
    *(f"{name}.safetensors" for name in ("last", "best", "final")),
    *("run.json", "log.jsonl", "results.json", "report.md"),
    *(f"{name}.png" for name in ("curves", "confusion_matrix", "fusion")),
)
"""What a run writes into its folder; a kill inside a write leaves a temporary file of the same name."""


class RunFolder:
    """The files of one run.

    last.safetensors (the state, for `--resume`), best.safetensors and final.safetensors (weights files), log.jsonl,
    run.json (command, recipe and environment), report.md and its pictures.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.last = self.path / "last.safetensors"
        self.best = self.path / "best.safetensors"
        self.final = self.path / "final.safetensors"
        self.run = self.path / "run.json"
        self.log = Log(self.path / "log.jsonl")
        self._release: Callable[[], None] | None = None

    def open(self, resume: bool) -> Checkpoint | None:
        """Make the folder, or find the checkpoint in it that a resumed run starts from (None where there is none yet).

        It is this run's alone until `close`. Temporary files that a killed run left are no obstacle, and are removed.

        Raises:
            TrainingError: it holds a run and `resume` is not set, or other files, or it cannot be written, or another
                run that is going on.
        """
        self.close()
        try:
            return self._opened(resume)
        except BaseException:
            self.close()
            raise

    def _opened(self, resume: bool) -> Checkpoint | None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._release = _io.hold(self.path)
            names = {entry.name for entry in self.path.iterdir()}
            leftovers = {name for name in names if leftover_of(name) in WRITTEN}
            names -= leftovers
        except BlockingIOError:
            raise TrainingError(
                f"{self.path}: another run is going on in this folder; choose another out (--out), or wait for its end"
            ) from None
        except OSError as error:
            raise TrainingError(f"{self.path}: no folder for a run: {error.strerror or error}") from None
        if not os.access(self.path, os.W_OK):
            raise TrainingError(f"{self.path}: this folder cannot be written")
        if names and not resume:
            what = "a run" if self.run.name in names or self.last.name in names else "other files"
            resuming = "go on with it by resume (--resume), or " if what == "a run" else ""
            raise TrainingError(f"{self.path}: this folder holds {what}; {resuming}choose another out (--out)")
        if names and not names & {self.run.name, self.last.name}:
            raise TrainingError(f"{self.path}: nothing to resume: this folder holds no run; choose another out (--out)")
        for name in leftovers:
            (self.path / name).unlink(missing_ok=True)
        return read_checkpoint(self.last) if self.last.name in names else None

    def close(self) -> None:
        """Let others open the folder."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def recipe(self) -> Recipe:
        """The recipe of the run's last session.

        Raises:
            TrainingError: run.json is missing or broken, or holds no valid recipe.
        """
        recipe: Any = self.session().get("recipe")
        try:
            return Recipe(**recipe)
        except (TypeError, RecipeError) as error:
            raise TrainingError(f"{self.run}: holds no valid recipe: {error}") from None

    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes that the run was trained on; None where run.json does not say them.

        Raises:
            TrainingError: run.json is missing or broken.
        """
        names = self.session().get("class_names")
        return tuple(map(str, names)) if isinstance(names, list) else None

    def session(self) -> dict[str, Any]:
        """What run.json says of the last session.

        Raises:
            TrainingError: it is missing or broken.
        """
        return self.sessions()[-1]

    def sessions(self) -> list[dict[str, Any]]:
        """What run.json says of each session, the first one first: there is more than one where a run was resumed.

        Raises:
            TrainingError: it is missing or broken.
        """
        try:
            found = json.loads(self.run.read_text("utf-8"))["sessions"]
        except OSError as error:
            raise TrainingError(f"{self.run}: cannot be read: {error.strerror or error}") from None
        except (ValueError, LookupError, TypeError, RecursionError):
            found = None
        if not isinstance(found, list) or not found or not all(isinstance(session, dict) for session in found):
            raise TrainingError(f"{self.run}: not the description of a run")
        return found

    def last_good(self) -> str:
        """A clause that names the checkpoint that a run can go on from."""
        if not self.last.exists():
            return "there is no checkpoint before it"
        try:
            step = read_checkpoint(self.last).state.step
        except TrainingError as error:  # this clause ends a message that says more than this error
            return f"the checkpoint before it is not good ({error})"
        return f"the last good checkpoint is {self.last}, of step {step}"

    def write_best(self, spec: Node, arrays: Mapping[str, Array]) -> None:
        """Write the weights with the highest test accuracy so far."""
        _write(self.best, spec, arrays)

    def write_final(self, spec: Node, arrays: Mapping[str, Array]) -> None:
        """Write the weights after the last step."""
        _write(self.final, spec, arrays)


def _write(path: Path, spec: Node, arrays: Mapping[str, Array]) -> None:
    try:
        write_weights(path, spec, arrays)
    except WeightsError as error:
        raise TrainingError(f"{error}; the checkpoints before it are intact") from None
