"""The folder of a run: its lock, log, description and checkpoints, what a killed run leaves, and old folders."""

import contextlib
import errno
import json
import pickle
import re
import shutil
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from maam import _io
from maam.backend.convert import convert
from maam.backend.protocol import LossScale
from maam.errors import TrainingError, WeightsError
from maam.training import evaluate_file, read_runs, train
from maam.training.checkpoint import find_not_finite, read_checkpoint, write_checkpoint
from maam.training.run_dir import Log, RunFolder
from maam.weights import read_weights
from maam.weights.file import read_header_and_arrays, write_safetensors
from tests.errors import error_of
from tests.training.conftest import stop

NO_RECORDS = ["{}", '{"note": 1}', '{"kind": "steps", "step": null}', '{"kind": null, "step": 1}', "[1]", "null"]
NO_RECORDS += ["[" * 200_000]
refusal = partial(error_of, TrainingError, train, "maam_digits")


def test_unusable_folders(recipe, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("Dear")
    for resume in (False, True):
        assert "contains other files; choose another out (--out)" in refusal(recipe, out=other, resume=resume)
    assert "resume: expected True, False or 'auto', got 'no'" in refusal(recipe, out=other, resume="no")
    assert "letter.txt: cannot be used as a folder: " in refusal(recipe, out=other / "letter.txt")
    monkeypatch.setattr("os.access", lambda *arguments: False)
    assert "this folder is not writable" in refusal(recipe, out=tmp_path / "new")


def test_resume_needs_a_run(short, tmp_path):
    out, message = tmp_path / "typo", "typo: there is no run to resume in this folder; check its name (--out), or "
    assert message in refusal(short, out=out, resume=True)
    assert not out.exists()
    out.mkdir()
    assert message in refusal(short, out=out, resume=True)
    for count in (1, 2):
        assert len(train("maam_digits", short, out=out, resume="auto").sessions()) == count


class KilledError(BaseException):
    """A kill, which no code catches."""


def train_until_killed(place, recipe, out):
    """Train until the function `place` is called, as if the process were killed there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, Mock(side_effect=KilledError))
        with pytest.raises(KilledError):
            train("maam_digits", recipe, out=out, resume="auto")


@pytest.mark.parametrize("place", ["maam.training.run.write_description", "maam.training.run_dir.Log.rewind"])
def test_kill_before_the_first_step(recipe, tmp_path, place):
    """The folder can be used again; if nothing was written, a new run can start in it, too."""
    folder = RunFolder(tmp_path / "run")
    train_until_killed(place, recipe, folder.path)
    assert folder.open(resume="auto") is None
    if not list(folder.path.iterdir()):
        assert folder.open(resume=False) is None


def test_folder_is_locked(short, done, done_refuses):
    holder = RunFolder(done.path)
    holder.open(resume=True)
    done_refuses("another run is in progress in this folder", short)
    holder.close()
    train("maam_digits", short, out=done.path, resume=True)


def test_run_without_its_checkpoint_starts_again(short, done):
    """It needs the recipe in run.json, and removes and replaces the final weights."""
    before = done.final.read_bytes()
    assert pickle.loads(pickle.dumps(done)).final == done.final
    done.last.unlink()
    found = refusal(short.replaced({"seed": 5}), out=done.path, resume=True)
    assert re.search("seed: this run was started with 0, not 5; .* or choose another out", found)
    train_until_killed("maam.training.loop.Loop.run", short, done.path)
    assert not done.final.exists()
    train("maam_digits", short, out=done.path, resume=True)
    assert done.final.read_bytes() == before


@pytest.mark.parametrize("text", ["{", '{"sessions": null}', '{"sessions": 0}', '{"sessions": [1]}', "[" * 200_000])
def test_broken_description_is_replaced(short, done, text):
    done.run.write_text(text)
    train("maam_digits", short, out=done.path, resume=True)
    assert len(done.sessions()) == 1
    before = done.final.read_bytes()
    done.last.unlink()  # a run without a checkpoint starts again, here with another recipe
    done.run.write_text(text)
    train("maam_digits", short.replaced({"seed": 1}), out=done.path, resume=True)
    assert done.recipe().seed == 1
    assert done.final.read_bytes() != before


def test_incomplete_description_and_missing_log(short, done):
    (session,) = done.sessions()
    done.run.write_text(json.dumps({"sessions": [{"recipe": session["recipe"]}]}))
    train("maam_digits", short, out=done.path, resume=True)
    assert "Command: `unknown`" in (done.path / "report.md").read_text()
    done.log.path.unlink()
    assert "the log of the run has no finished epoch" in refusal(short, out=done.path, resume=True)


def test_a_foreign_root_in_a_description(tmp_path):
    (tmp_path / "run.json").write_text('{"sessions": [{"root": 5}]}')
    found = error_of(TrainingError, RunFolder(tmp_path).sessions)
    assert re.search(r"run\.json: expected the description of a run .*, got a broken file", found)
    assert "run.json is missing or broken" in error_of(TrainingError, train, out=tmp_path, resume=True)


def test_copied_checkpoint_can_be_resumed(recipe, tmp_path):
    copy = tmp_path / "copy"
    stop(recipe, tmp_path / "run", at=14)
    copy.mkdir()
    (tmp_path / "run" / "last.safetensors").rename(copy / "last.safetensors")
    message = "contains a run; continue it with resume=True (--resume), or choose another out (--out)"
    assert message in refusal(recipe, out=copy)
    run = train("maam_digits", recipe, out=copy, resume=True)
    assert "epoch 2 |" in (run.path / "report.md").read_text()
    assert "this run cannot be read: the log of the run lacks epochs" in error_of(TrainingError, read_runs, copy)


def test_log_has_the_learning_rate_of_its_step(recipe, tmp_path):
    changes = {"epochs": 2, "optimizer.lr": 0.1, "schedule": {"name": "step", "step_epochs": 1, "gamma": 0.1}}
    found = train("maam_digits", recipe.replaced(changes), out=tmp_path / "run").log.records()
    assert [one["lr"] for one in found if one["kind"] == "steps"] == pytest.approx([0.1, 0.01])


def test_foreign_lines_in_a_log(short, tmp_path):
    out = tmp_path / "run"
    stop(short, out, at=8)
    with (out / "log.jsonl").open("a") as file:
        file.write("\n".join(NO_RECORDS) + "\n")
    run = train("maam_digits", short, out=out, resume=True)
    assert (out / "results.json").exists()
    assert {type(record["step"]) for record in run.log.records()} == {int}
    Log(out / "odd.jsonl").path.write_text("\n".join(NO_RECORDS))
    assert Log(out / "odd.jsonl").records() == []


class TestTemporaryFiles:
    def leave(self, path):
        """Leave a temporary file as a process that is killed during a write."""
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KilledError), _io.replacing(path):
            patch.setattr("pathlib.Path.unlink", lambda *arguments, **keywords: None)
            raise KilledError

    @pytest.mark.parametrize("resume", [False, True])
    def test_of_the_first_write(self, tmp_path, resume):
        self.leave(tmp_path / "run.json")
        assert len(list(tmp_path.iterdir())) == 1
        assert RunFolder(tmp_path).open(resume) is None
        assert list(tmp_path.iterdir()) == []

    def test_of_killed_runs_are_removed(self, done):
        before = {path.name for path in done.path.iterdir()}
        for name in (*before, "letter.txt", "last"):
            self.leave(done.path / name)
        assert "contains a run" in error_of(TrainingError, done.open, resume=False)
        assert len(list(done.path.iterdir())) == 2 * len(before) + 2  # another process may still write them
        assert done.open(resume=True).state.step == 11
        others = {path.name for path in done.path.iterdir()} - before
        assert sorted(name[:6] for name in others) == [".last.", ".lette"]

    def test_their_names(self):
        files = {".last.safetensors.ab_3cd9x.safetensors": "last.safetensors", ".last.abcdefgh": "last"}
        files |= {".run.json.abcdefgh.json": "run.json", "run.json.abcdefgh.json": None}
        others = ("abcdefg.json", "ABCDEFGH.json", "abcdefgh.txt", "abcdefgh")
        files |= dict.fromkeys([".run.json", *(f".run.json.{other}" for other in others)])
        assert {name: _io.leftover_of(name) for name in files} == files


class TestCheckpoints:
    """Broken files, full disks, and runs that cannot be resumed with another recipe."""

    def test_resume_with_another_recipe(self, short, done_refuses):
        started = "this run was started with"
        for changes, message in [
            ({"optimizer.lr": 0.2}, f"done: optimizer: {started} {{'name': 'sgd', 'lr': 0.1, "),
            ({"seed": 3}, f"done: seed: {started} 0, not 3; resume it with the same recipe, or start a new"),
            ({"batch_size": 64}, f"done: batch_size: {started} 128, not 64; .*, or start a new run from"),
            ({"overrides.hidden_features": 16}, "this is a checkpoint of another model than maam_digits"),
        ]:
            done_refuses(message, short.replaced(changes))

    def test_truncated(self, short, done, done_refuses):
        assert "of step 11" in done.describe_last()
        whole = done.last.read_bytes()
        for size in (5000, 100, 7, 0):
            done.last.write_bytes(whole[:size])
            done_refuses(r"last.safetensors: not a safetensors file, or truncated", short)
        reason = f"{done.last}: not a safetensors file"
        assert done.describe_last().startswith(f"the last checkpoint is not usable ({reason}")

    def test_headers(self, done):
        """Broken ones, that of an earlier version, and those of other files."""
        header, arrays = read_header_and_arrays(done.last)
        progress = '{"step": %s, "loss_scale": %s, "best_accuracy": 0.5}'
        broken = {"progress": ["{}", "nonsense", progress % ('"x"', "null"), progress % (1, "[1]")]}
        broken |= {"recipe": ["[]", '{"epochs": 0}'], "spec": ["{"]}
        for field, value in ((field, value) for field, values in broken.items() for value in values):
            write_safetensors(done.last, arrays, {**header, field: value})
            assert "the checkpoint's header is broken" in error_of(TrainingError, read_checkpoint, done.last)
        write_safetensors(done.last, arrays, {**header, "progress": progress % (11, "null")})
        assert read_checkpoint(done.last).state.skipped == 0
        write_safetensors(done.last, arrays, {**header, "format_version": "99"})
        for path in (done.final, done.last):
            message = f"{path}: expected a training checkpoint of version 1, got format"
            assert error_of(TrainingError, read_checkpoint, path).startswith(message)

    def test_arrays_that_do_not_fit(self, done):
        header, arrays = read_header_and_arrays(done.last)
        name = next(name for name in arrays if name.startswith("optimizer.momentum_buffer/"))
        for wrong, message in (
            ({k: v for k, v in arrays.items() if k != name}, "momentum_buffer: these arrays do not fit"),
            ({**arrays, name: arrays[name][:1]}, "momentum_buffer: these arrays do not fit"),
            ({**arrays, "model/stranger": np.zeros(1, np.float32)}, "model: these arrays do not fit"),
            ({**arrays, name: np.full_like(arrays[name], np.nan)}, "momentum_buffer: these arrays are not finite"),
        ):
            write_safetensors(done.last, wrong, header)
            assert message in error_of(TrainingError, read_checkpoint, done.last)

    @pytest.mark.parametrize("section", ["model", "average", "optimizer.momentum_buffer"])
    def test_arrays_that_are_not_finite_are_found(self, done, section):
        found = read_checkpoint(done.last)
        assert find_not_finite(found) == []
        moments = found.state.moments["momentum_buffer"]
        arrays = {"model": found.arrays, "average": found.state.average}.get(section, moments)
        arrays["reduce.conv.weight"] = np.full_like(arrays["reduce.conv.weight"], np.inf)
        assert find_not_finite(found) == [f"{section}/reduce.conv.weight"]

    def test_are_no_weights_files(self, done):
        for read in (read_weights, lambda path: convert(path, "other.safetensors", "maam_digits")):
            found = error_of(WeightsError, read, done.last)
            assert re.search(r"a training checkpoint; .* best.safetensors and .*final.safetensors", found)

    @pytest.mark.parametrize("function", ["pathlib.Path.write_bytes", "maam._io.os.fsync"])
    def test_full_disk_leaves_the_previous_one(self, done, monkeypatch, function):
        before, checkpoint = done.last.read_bytes(), read_checkpoint(done.last)
        with monkeypatch.context() as patch:
            patch.setattr(function, Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
            found = error_of(TrainingError, write_checkpoint, done.last, checkpoint)
        assert "No space left on device; the previous checkpoint is intact" in found
        assert done.last.read_bytes() == before
        assert not [path for path in done.path.iterdir() if path.name.startswith(".")]


OLD = Path(__file__).with_name("old")
ADAM = ["exp_avg", "exp_avg_sq"]
STATES = {"torch": (10, ["momentum_buffer"], None), "mindspore": (10, ADAM, None)}
STATES["interrupted"] = (6, ADAM, LossScale(65536.0, 6))
"""Of the last checkpoint of each run: its step, moments and loss scale."""
LAST_TEST_LOSS = 2.371722
"""Of the interrupted run if it is not interrupted, as commit e12d8e8 logged it."""


class TestOldFiles:
    """The folders in tests/training/old are runs of a small maam_digits, written by commit e12d8e8.

    - torch: a finished run with SGD, an average of the weights, clipping and label smoothing;
    - mindspore: a finished run with AdamW and a cosine schedule;
    - interrupted: a MindSpore run with Adam in float16, stopped at step 8 of 10, after the checkpoint of step 6.
    """

    @pytest.mark.parametrize("name", STATES)
    def test_weights_file_evaluates_as_logged(self, name):
        folder, finished = RunFolder(OLD / name), name != "interrupted"  # that run evaluated in float16
        path = folder.final if finished else folder.best
        spec, arrays = read_weights(path)
        assert spec.name == "maam_digits"
        assert {p.name: p.shape for p in spec.parameters()} == {name: array.shape for name, array in arrays.items()}
        found = evaluate_file(path, "digits", framework="reference")
        record = [one for one in folder.log.records() if one["kind"] == "epoch"][-1]
        assert found.accuracy == pytest.approx(record["test_accuracy"], abs=1e-6 if finished else 0.01)
        assert found.loss == pytest.approx(record["test_loss"], rel=1e-5 if finished else 1e-3)

    @pytest.mark.parametrize("name", STATES)
    def test_checkpoint_is_complete(self, name):
        found = read_checkpoint(OLD / name / "last.safetensors")
        assert (found.state.step, list(found.state.moments), found.state.loss_scale) == STATES[name]
        names = {parameter.name for parameter in found.spec.parameters()}
        assert found.arrays.keys() == names
        assert set(found.state.average) == (names if name == "torch" else set())
        assert all(any(np.any(array) for array in moment.values()) for moment in found.state.moments.values())
        best = max(one["test_accuracy"] for one in RunFolder(OLD / name).log.records() if "test_accuracy" in one)
        assert found.best_accuracy == pytest.approx(best, abs=1e-6)

    def test_run_folders_are_compared(self):
        found = {run.name: (len(run.test_accuracy), run.framework, run.recipe.optimizer.name) for run in read_runs(OLD)}
        expected = {"torch": (2, "torch", "sgd"), "mindspore": (2, "mindspore", "adamw")}
        assert found == {**expected, "interrupted": (1, "mindspore", "adam")}
        assert RunFolder(OLD / "torch").class_names() == tuple("0123456789")

    def test_finished_run_is_not_trained_again(self, framework, tmp_path):
        old = OLD / framework
        folder = RunFolder(shutil.copytree(old, tmp_path / "run"))
        train("maam_digits", folder.recipe(), out=folder.path, framework=framework, resume=True)
        for file in ("final.safetensors", "last.safetensors"):
            assert (folder.path / file).read_bytes() == (old / file).read_bytes()
        results, before = (json.loads((path / "results.json").read_text()) for path in (folder.path, old))
        assert results == pytest.approx(before, rel=1e-5)

    @pytest.mark.slow_in("mindspore")
    def test_interrupted_run_is_resumed(self, framework, tmp_path):
        """In both frameworks it ends as the run that was not interrupted."""
        folder = RunFolder(shutil.copytree(OLD / "interrupted", tmp_path / "run"))
        train("maam_digits", folder.recipe(), out=folder.path, framework=framework, resume=True, log_steps=1)
        records = folder.log.records()
        assert [one["step"] for one in records if one["kind"] == "steps"] == list(range(1, 11))
        assert records[-1]["test_loss"] == pytest.approx(LAST_TEST_LOSS, rel=1e-3)
        assert len(folder.sessions()) == 2
        found = evaluate_file(folder.path, "digits", framework="reference")
        assert found.loss == pytest.approx(records[-1]["test_loss"], rel=1e-3)
