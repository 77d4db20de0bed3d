"""The folder of a run: its files, its log and the description of its sessions."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from maam import _io
from maam._documents import parse_json
from maam.errors import RecipeError, TrainingError, WeightsError
from maam.spec import Node
from maam.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from maam.training.recipe import Recipe
from maam.weights import write_weights
from maam.weights.file import check_path
from maam.weights.lookup import FINAL
from maam.weights.pretrained import find_pretrained, has_pretrained, hint_for

Array = np.ndarray[Any, Any]
PathLike = str | os.PathLike[str]
Resume = bool | Literal["auto"]
"""Whether to continue the run in a folder; "auto" continues it if there is one, and starts a new run otherwise."""
Record = dict[str, Any]
"""A line of the log, by field."""
START = "start"
"""The kind of the record of the log before the first step; it has the initial fusion weights."""
LAST, PREVIOUS, BEST = "last.safetensors", "previous.safetensors", "best.safetensors"
RUN, LOG, RESULTS, REPORT = "run.json", "log.jsonl", "results.json", "report.md"
CURVES, CONFUSION_MATRIX, FUSION = "curves.png", "confusion_matrix.png", "fusion.png"
WRITTEN = (LAST, PREVIOUS, BEST, FINAL, RUN, LOG, RESULTS, REPORT, CURVES, CONFUSION_MATRIX, FUSION)
"""The files that a run writes; a process killed during a write leaves a temporary file with a name derived from one."""
_DIGITS = 7
_MAX_BYTES = 64 << 20


class RunFolder:
    """The folder of one run.

    Args:
        path: the folder; it need not exist.

    Attributes:
        path: the folder.
        last: last.safetensors, the checkpoint that a resumed run starts from.
        previous: previous.safetensors, the checkpoint before it.
        best: best.safetensors, the weights with the highest accuracy on the test images, or on those that `validation`
            holds out.
        final: final.safetensors, the weights after the last step.
        run: run.json, for each session its command, recipe and environment.
        log: log.jsonl.
        results: results.json, the final accuracy, loss and time.
        report: report.md.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        self.last = self.path / LAST
        self.previous = self.path / PREVIOUS
        self.best = self.path / BEST
        self.final = self.path / FINAL
        self.run = self.path / RUN
        self.log = Log(self.path / LOG)
        self.results = self.path / RESULTS
        self.report = self.path / REPORT
        self._release: Callable[[], None] | None = None

    def open(self, resume: Resume) -> Checkpoint | None:
        """Create the folder for a new run, or return the checkpoint of the run to resume.

        The folder is locked until `close`. Temporary files of a killed run are removed.

        Args:
            resume: whether to continue the run in the folder; "auto" continues it if there is one.

        Returns:
            The checkpoint; None for a new run, or if the run was stopped before its first checkpoint.

        Raises:
            TrainingError: the folder contains a run and `resume` is False, contains no run and `resume` is True,
                contains other files, cannot be written, or another process is training in it; or the last checkpoint
                is damaged.
        """
        self.close()
        try:
            return self._open(resume)
        except BaseException:
            self.close()
            raise

    def _open(self, resume: Resume) -> Checkpoint | None:
        if resume not in (True, False, "auto"):
            raise TrainingError(f"resume: expected True, False or 'auto', got {resume!r}")
        nothing = (
            f"{self.path}: there is no run to resume in this folder; check its name (--out), or start a run there "
            "without resume=True (--resume)"
        )
        try:
            if resume is True and not self.path.exists():
                raise TrainingError(nothing)
            self.path.mkdir(parents=True, exist_ok=True)
            self._release = _io.hold(self.path)
            names = {entry.name for entry in self.path.iterdir()}
        except BlockingIOError:
            raise TrainingError(
                f"{self.path}: another run is in progress in this folder; wait for it, or choose another out (--out)"
            ) from None
        except OSError as error:
            raise TrainingError(f"{self.path}: cannot be used as a folder: {error.strerror or error}") from None
        if not os.access(self.path, os.W_OK):
            raise TrainingError(f"{self.path}: this folder is not writable; choose another out (--out)")
        leftovers = {name for name in names if _io.leftover_of(name) in WRITTEN}
        names = {name for name in names - leftovers if not name.startswith(".")}  # hidden, such as .ipynb_checkpoints
        has_run = bool(names & {self.run.name, self.last.name, self.previous.name})
        if names and has_run and not resume:
            raise TrainingError(
                f"{self.path}: this folder contains a run; continue it with resume=True (--resume), "
                "or choose another out (--out)"
            )
        if names and not has_run:
            raise TrainingError(f"{self.path}: this folder contains other files; choose another out (--out)")
        if resume is True and not has_run and not leftovers:
            raise TrainingError(nothing)
        for name in leftovers:
            (self.path / name).unlink(missing_ok=True)
        return self.read_last()

    def read_last(self) -> Checkpoint | None:
        """Return the last checkpoint, or the one before it if the last one was removed; None if there is none.

        Raises:
            TrainingError: the checkpoint is damaged; the message names the one before it.
        """
        if not self.last.exists():
            return read_checkpoint(self.previous) if self.previous.exists() else None
        try:
            return read_checkpoint(self.last)
        except TrainingError as error:
            step = None
            with contextlib.suppress(TrainingError):
                step = read_checkpoint(self.previous).state.step
            if step is not None:
                raise TrainingError(
                    f"{error}; {self.previous}, the checkpoint of step {step}, is undamaged: remove {self.last}, and "
                    "resume again to continue from there"
                ) from None
            raise

    def write_last(self, checkpoint: Checkpoint) -> None:
        """Write the last checkpoint, and keep the one before it as `previous`.

        Raises:
            TrainingError: a file cannot be written; the last checkpoint is then unchanged.
        """
        if self.last.exists():
            try:
                _io.link(self.last, self.previous)
            except OSError as error:
                raise TrainingError(
                    f"{self.previous}: cannot be written: {error.strerror or error}; the previous checkpoint is intact"
                ) from None
        write_checkpoint(self.last, checkpoint)

    def close(self) -> None:
        """Release the lock of `open`."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def recipe(self) -> Recipe:
        """Return the recipe of the last session.

        Raises:
            TrainingError: run.json is missing or broken, or contains no valid recipe.
        """
        recipe: Any = self.sessions()[-1].get("recipe")
        try:
            return Recipe(**recipe)
        except (TypeError, RecipeError) as error:
            raise TrainingError(f"{self.run}: contains no valid recipe: {error}") from None

    def class_names(self) -> tuple[str, ...] | None:
        """Return the names of the classes; None if run.json does not contain them.

        Raises:
            TrainingError: run.json is missing or broken.
        """
        names = self.sessions()[-1].get("class_names")
        return tuple(map(str, names)) if isinstance(names, list) else None

    def sessions(self) -> list[dict[str, Any]]:
        """Return the descriptions of all sessions in run.json, the first one first; each resume adds one.

        Raises:
            TrainingError: run.json is missing or broken.
        """
        try:
            found = parse_json(_io.read_text(self.run, _MAX_BYTES))["sessions"]
        except OSError as error:
            raise TrainingError(f"{self.run}: cannot be read: {error.strerror or error}") from None
        except (ValueError, LookupError, TypeError, RecursionError):
            found = None
        if not isinstance(found, list) or not found or not all(map(_is_session, found)):
            raise TrainingError(
                f"{self.run}: expected the description of a run as maam train writes it, got a broken file"
            )
        return found

    def describe_last(self) -> str:
        """Return a clause for error messages that names the last good checkpoint."""
        if not self.last.exists():
            return "there is no earlier checkpoint"
        try:
            step = read_checkpoint(self.last).state.step
        except TrainingError as error:  # a broken checkpoint must not hide the original error
            return f"the last checkpoint is not usable ({error})"
        return f"the last good checkpoint is {self.last}, of step {step}"

    def write_best(self, spec: Node, arrays: Mapping[str, Array]) -> None:
        """Write the weights with the highest accuracy so far.

        Raises:
            TrainingError: the file cannot be written.
        """
        _write_weights(self.best, spec, arrays)

    def write_final(self, spec: Node, arrays: Mapping[str, Array]) -> None:
        """Write the weights after the last step.

        Raises:
            TrainingError: the file cannot be written.
        """
        _write_weights(self.final, spec, arrays)


def _is_session(session: object) -> bool:
    """Return whether a part of run.json describes a session, whose folder of the data is a path or missing."""
    return isinstance(session, dict) and isinstance(session.get("root"), str | None)


def _write_weights(path: Path, spec: Node, arrays: Mapping[str, Array]) -> None:
    try:
        write_weights(path, spec, arrays)
    except WeightsError as error:
        raise TrainingError(f"{error}; the earlier checkpoints are intact") from None


class FoundWeights(NamedTuple):
    """A weights file and the run that wrote it.

    Attributes:
        path: the weights file.
        run: the folder of the run; None if the file does not belong to one.
    """

    path: Path
    run: RunFolder | None


def find_weights(path: PathLike) -> FoundWeights:
    """Look up a weights file, the final weights of a run by its folder, or pretrained weights by the name of a preset.

    final.safetensors and best.safetensors belong to the run whose run.json is in the same folder.

    Raises:
        WeightsError: `path` is not a path, or a folder without final weights, or a name without pretrained weights.
    """
    check_path(path)
    name, found = os.fspath(path), Path(path)
    if not name:
        raise WeightsError("expected a weights file, the folder of a run or the name of a preset, got an empty text")
    if has_pretrained(name) and not found.exists():
        return FoundWeights(find_pretrained(name), None)
    if found.name == name and not found.suffix and not found.exists():
        raise WeightsError(
            f"{path}: no such file or folder, and the package has no pretrained weights of this name; {hint_for(name)}"
        )
    run = RunFolder(found if found.is_dir() else found.parent)
    has_run = run.run.exists()
    if not found.is_dir():
        return FoundWeights(found, run if has_run and found.name in (run.final.name, run.best.name) else None)
    if run.final.exists():
        return FoundWeights(run.final, run if has_run else None)
    if not has_run:
        raise WeightsError(
            f"{found}: this folder contains no run; expected a weights file, or the folder of a training run"
        )
    best = f", or use {run.best}" if run.best.exists() else ""
    raise WeightsError(f"{found}: this run is not finished: there is no {run.final.name}; resume it (--resume){best}")


class Log:
    """A file of records, one JSON object a line.

    If the file is missing, but a compressed one with the suffix .gz exists, as in published runs, that one is read.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)

    def append(self, record: Record) -> None:
        """Add one record.

        Raises:
            TrainingError: the file cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(_rounded(record)) + "\n")
        except OSError as error:
            raise self._write_error(error) from None

    def sync(self) -> None:
        """Wait until all records are on the disk, so that no checkpoint is newer than its log after a power cut.

        Raises:
            TrainingError: the file cannot be written.
        """
        try:
            with self.path.open("ab") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise self._write_error(error) from None

    def records(self) -> list[Record]:
        """Return all records; lines that are not a record, such as truncated ones, are skipped.

        Raises:
            TrainingError: the file cannot be read. A missing file is read as an empty one.
        """
        packed = self.path.with_name(f"{self.path.name}.gz")
        try:
            is_packed = packed.exists() and not self.path.exists()
            with _io.open_regular(packed if is_packed else self.path) as file:
                content = gzip.GzipFile(fileobj=file).read(_MAX_BYTES + 1) if is_packed else file.read()
            if is_packed and len(content) > _MAX_BYTES:
                raise OSError(f"more than {_MAX_BYTES} bytes after unpacking")
        except FileNotFoundError:
            return []
        except (OSError, EOFError, zlib.error) as error:
            raise TrainingError(f"{self.path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
        return list(_parse(content.decode("utf-8", errors="replace").splitlines()))

    def rewind(self, step: int) -> None:
        """Remove the records of steps after `step`, which a resumed run repeats.

        Raises:
            TrainingError: the file cannot be read or written; it is then unchanged.
        """
        earlier = [record for record in self.records() if record["step"] <= step]
        try:
            _io.write_text(self.path, "".join(json.dumps(record) + "\n" for record in earlier))
        except OSError as error:
            raise self._write_error(error) from None

    def _write_error(self, error: OSError) -> TrainingError:
        return TrainingError(f"{self.path}: cannot be written: {error.strerror or error}; the checkpoints are intact")


def _parse(lines: Sequence[str]) -> Iterator[Record]:
    for line in lines:
        try:
            record = parse_json(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("kind"), str) and isinstance(record.get("step"), int):
            yield record


def _rounded(value: Any) -> Any:
    """Return a value of a record with all floats rounded to `_DIGITS` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value
