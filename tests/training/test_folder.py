"""The folder of a run: what it may hold at the start, and what a kill leaves in it."""

import json
import pickle

import pytest

from maam import _io
from maam.errors import TrainingError
from maam.training import read_runs, train
from maam.training.compare import render_runs
from maam.training.run_dir import RunFolder


def test_a_folder_that_holds_a_run(recipe, done):
    before = {path.name: path.read_bytes() for path in done.path.iterdir()}
    with pytest.raises(
        TrainingError, match=r"holds a run; go on with it by resume \(--resume\), or choose another out \(--out\)"
    ):
        train("maam_digits", recipe, out=done.path)
    assert {path.name: path.read_bytes() for path in done.path.iterdir()} == before


def test_folders_that_are_none(recipe, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("Dear")
    for resume, message in ((False, r"holds other files; choose another out \(--out\)"), (True, "nothing to resume")):
        with pytest.raises(TrainingError, match=message):
            train("maam_digits", recipe, out=tmp_path / "other", resume=resume)
    with pytest.raises(TrainingError, match=r"letter.txt: no folder for a run: "):
        train("maam_digits", recipe, out=tmp_path / "other" / "letter.txt")
    monkeypatch.setattr("os.access", lambda *arguments: False)
    with pytest.raises(TrainingError, match="this folder cannot be written"):
        train("maam_digits", recipe, out=tmp_path / "new")


class KilledError(BaseException):
    """Stands for a kill: nothing catches it on the way."""


@pytest.mark.parametrize("place", ["maam.training.run.write_description", "maam.training.run_dir.Log.rewind"])
def test_a_kill_before_the_first_step(recipe, tmp_path, monkeypatch, place):
    """Such a folder can be resumed; where nothing was written yet, it can be started too."""

    def kill(*arguments, **facts):
        raise KilledError

    monkeypatch.setattr(place, kill)
    with pytest.raises(KilledError):
        train("maam_digits", recipe, out=tmp_path / "run")
    monkeypatch.undo()
    folder = RunFolder(tmp_path / "run")
    assert folder.open(resume=True) is None
    if not list(folder.path.iterdir()):
        assert folder.open(resume=False) is None


def test_a_folder_is_one_runs(recipe, done, tmp_path):
    holder = RunFolder(done.path)
    holder.open(resume=True)
    before = {path.name: path.read_bytes() for path in done.path.iterdir()}
    with pytest.raises(TrainingError, match="another run is going on in this folder"):
        train("maam_digits", recipe.replaced({"epochs": 1}), out=done.path, resume=True)
    assert {path.name: path.read_bytes() for path in done.path.iterdir()} == before
    holder.close()
    train("maam_digits", recipe.replaced({"epochs": 1}), out=done.path, resume=True)


def test_without_its_checkpoint_a_run_begins_again(recipe, done):
    """The weights at its end are then those of what was trained now, by the recipe that the folder names."""
    before = done.final.read_bytes()
    done.last.unlink()
    with pytest.raises(TrainingError, match="the run has another seed: 0, not 5"):
        train("maam_digits", recipe.replaced({"epochs": 1, "seed": 5}), out=done.path, resume=True)
    done.final.write_bytes(b"old")
    train("maam_digits", recipe.replaced({"epochs": 1}), out=done.path, resume=True)
    assert done.final.read_bytes() == before


def test_a_run_that_begins_again_has_no_final_weights(recipe, done, monkeypatch):
    done.last.unlink()

    def kill(*arguments):
        raise KilledError

    monkeypatch.setattr("maam.training.loop.Loop.run", kill)
    with pytest.raises(KilledError):
        train("maam_digits", recipe.replaced({"epochs": 1}), out=done.path, resume=True)
    assert not done.final.exists()


def test_the_folder_that_training_returns_can_be_sent(done):
    assert pickle.loads(pickle.dumps(done)).final == done.final


def test_a_description_that_is_broken_is_none(recipe, done):
    done.last.unlink()
    done.run.write_text("{")
    train("maam_digits", recipe.replaced({"epochs": 1, "seed": 1}), out=done.path, resume=True)
    assert done.recipe().seed == 1


@pytest.mark.parametrize("text", ['{"sessions": null}', '{"sessions": 0}', '{"sessions": [1]}', "[" * 200_000])
def test_a_description_of_odd_things_is_none(recipe, done, text):
    done.run.write_text(text)
    train("maam_digits", recipe.replaced({"epochs": 1}), out=done.path, resume=True)
    assert len(done.sessions()) == 1


def test_sessions_that_say_little(recipe, done):
    (session,) = done.sessions()
    done.run.write_text(json.dumps({"sessions": [{"recipe": session["recipe"]}]}))
    train("maam_digits", recipe.replaced({"epochs": 1}), out=done.path, resume=True)
    assert "Command: `unknown`" in (done.path / "report.md").read_text()


def test_a_checkpoint_alone_can_be_gone_on_from(recipe, tmp_path, stop):
    """As where it was copied: log and report tell of what was trained since."""
    stop("maam_digits", recipe, out=tmp_path / "run", at=14, log_steps=1, checkpoint_steps=4)
    (tmp_path / "copy").mkdir()
    (tmp_path / "run" / "last.safetensors").rename(tmp_path / "copy" / "last.safetensors")
    with pytest.raises(TrainingError, match="holds a run; go on with it by resume"):
        train("maam_digits", recipe, out=tmp_path / "copy")
    run = train("maam_digits", recipe, out=tmp_path / "copy", resume=True)
    assert "epoch 2 |" in (run.path / "report.md").read_text()
    with pytest.raises(TrainingError, match="this run cannot be read: the log of the run lacks epochs"):
        read_runs(run.path)


def test_names_that_are_no_text(recipe, tmp_path, monkeypatch):
    """Bytes that are not UTF-8 in a command or the name of a folder cost nobody the report."""
    monkeypatch.setattr("maam.training.run.command_line", lambda: "maam train --out \udcff")
    run = train("maam_digits", recipe.replaced({"epochs": 1}), out=tmp_path / "run\udcff")
    assert "--out \\udcff`" in (run.path / "report.md").read_text()
    render_runs(read_runs(run.path), tmp_path / "runs.md")
    assert "run\\udcff" in (tmp_path / "runs.md").read_text()


def test_a_log_that_is_gone(recipe, done):
    done.log.path.unlink()
    with pytest.raises(TrainingError, match="the log of the run has no whole epoch"):
        train("maam_digits", recipe.replaced({"epochs": 1}), out=done.path, resume=True)


def test_the_log_has_the_rate_of_its_step(recipe, tmp_path):
    changes = {"epochs": 2, "optimizer.lr": 0.1, "schedule": {"name": "step", "step_epochs": 1, "gamma": 0.1}}
    found = train("maam_digits", recipe.replaced(changes), out=tmp_path / "run").log.records()
    assert [one["lr"] for one in found if one["kind"] == "steps"] == pytest.approx([0.1, 0.01])


@pytest.mark.parametrize("counts", [{"log_steps": 0}, {"checkpoint_steps": 0}, {"checkpoint_steps": 2.5}])
def test_steps_of_nothing(recipe, tmp_path, counts):
    with pytest.raises(TrainingError, match=rf"^{next(iter(counts))}: expected an integer of at least 1, got"):
        train("maam_digits", recipe, out=tmp_path / "run", **counts)
    assert not (tmp_path / "run").exists()


def leave(path):
    """A temporary file, as a process that is killed inside a write leaves it."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        write_half(path, patch)


def write_half(path, patch):
    with _io.replacing(path):
        patch.setattr("pathlib.Path.unlink", lambda *arguments, **keywords: None)
        raise KilledError


@pytest.mark.parametrize("resume", [False, True])
def test_a_kill_inside_the_first_write(tmp_path, resume):
    leave(tmp_path / "run.json")
    assert len(list(tmp_path.iterdir())) == 1
    assert RunFolder(tmp_path).open(resume) is None
    assert list(tmp_path.iterdir()) == []


def test_temporary_files_of_kills_go(done):
    before = {path.name for path in done.path.iterdir()}
    for name in (*before, "letter.txt", "last"):
        leave(done.path / name)
    with pytest.raises(TrainingError, match="holds a run"):
        done.open(resume=False)
    assert len(list(done.path.iterdir())) == 2 * len(before) + 2  # another process may be writing them
    assert done.open(resume=True).state.step == 11
    others = {path.name for path in done.path.iterdir()} - before
    assert sorted(name[:6] for name in others) == [".last.", ".lette"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (".last.safetensors.ab_3cd9x.safetensors", "last.safetensors"),
        (".run.json.abcdefgh.json", "run.json"),
        (".last.abcdefgh", "last"),
        ("run.json.abcdefgh.json", None),
        (".run.json.abcdefg.json", None),
        (".run.json.ABCDEFGH.json", None),
        (".run.json.abcdefgh.txt", None),
        (".run.json.abcdefgh", None),
        (".run.json", None),
    ],
)
def test_names_of_temporary_files(name, expected):
    assert _io.leftover_of(name) == expected
