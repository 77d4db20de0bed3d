"""The folder of a run: its lock, its log, its description, and the files that a killed run leaves."""

import contextlib
import json
import pickle
import re
from functools import partial
from unittest.mock import Mock

import pytest

from maam import _io
from maam.errors import TrainingError
from maam.training import read_runs, train
from maam.training.run_dir import Log, RunFolder
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
    done.last.unlink()  # a run without a checkpoint starts again, here with another recipe
    done.run.write_text(text)
    train("maam_digits", short.replaced({"seed": 1}), out=done.path, resume=True)
    assert done.recipe().seed == 1


def test_incomplete_description_and_missing_log(short, done):
    (session,) = done.sessions()
    done.run.write_text(json.dumps({"sessions": [{"recipe": session["recipe"]}]}))
    train("maam_digits", short, out=done.path, resume=True)
    assert "Command: `unknown`" in (done.path / "report.md").read_text()
    done.log.path.unlink()
    assert "the log of the run has no finished epoch" in refusal(short, out=done.path, resume=True)


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


@pytest.mark.parametrize(("name", "count"), [("log_steps", 0), ("checkpoint_steps", 0), ("checkpoint_steps", 2.5)])
def test_counts_of_steps(recipe, refuses, name, count):
    refuses(TrainingError, rf"^{name}: expected an integer of at least 1, got", "maam_digits", recipe, **{name: count})


def leave(path):
    """Leave a temporary file as a process that is killed during a write."""
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KilledError), _io.replacing(path):
        patch.setattr("pathlib.Path.unlink", lambda *arguments, **keywords: None)
        raise KilledError


@pytest.mark.parametrize("resume", [False, True])
def test_kill_during_the_first_write(tmp_path, resume):
    leave(tmp_path / "run.json")
    assert len(list(tmp_path.iterdir())) == 1
    assert RunFolder(tmp_path).open(resume) is None
    assert list(tmp_path.iterdir()) == []


def test_temporary_files_of_killed_runs_are_removed(done):
    before = {path.name for path in done.path.iterdir()}
    for name in (*before, "letter.txt", "last"):
        leave(done.path / name)
    assert "contains a run" in error_of(TrainingError, done.open, resume=False)
    assert len(list(done.path.iterdir())) == 2 * len(before) + 2  # another process may still write them
    assert done.open(resume=True).state.step == 11
    others = {path.name for path in done.path.iterdir()} - before
    assert sorted(name[:6] for name in others) == [".last.", ".lette"]


def test_names_of_temporary_files():
    files = {".last.safetensors.ab_3cd9x.safetensors": "last.safetensors", ".last.abcdefgh": "last"}
    files |= {".run.json.abcdefgh.json": "run.json", "run.json.abcdefgh.json": None, ".run.json.abcdefg.json": None}
    files |= dict.fromkeys([".run.json.ABCDEFGH.json", ".run.json.abcdefgh.txt", ".run.json.abcdefgh", ".run.json"])
    assert {name: _io.leftover_of(name) for name in files} == files


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


def test_a_foreign_root_in_a_description(tmp_path):
    (tmp_path / "run.json").write_text('{"sessions": [{"root": 5}]}')
    found = error_of(TrainingError, RunFolder(tmp_path).sessions)
    assert re.search(r"run\.json: expected the description of a run .*, got a broken file", found)
    assert "run.json is missing or broken" in error_of(TrainingError, train, out=tmp_path, resume=True)
