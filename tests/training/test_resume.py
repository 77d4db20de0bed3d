"""A run that was interrupted gives, bit for bit, what one gives that was not."""

import json

import pytest

from maam import spec
from maam.training import train
from maam.training.checkpoint import read_checkpoint


def same(first, second):
    """Whether two checkpoints hold the same bits."""
    pairs = list(zip(parts(first), parts(second), strict=True))
    return all(one.tobytes() == other.tobytes() for one, other in pairs)


def parts(checkpoint):
    """All arrays of a checkpoint in one order."""
    state = checkpoint.state
    for section in (checkpoint.arrays, state.average, *state.moments.values()):
        yield from (section[name] for name in sorted(section))


def without_times(folder):
    """The log without what a clock measured."""
    clocks = ("seconds", "images_per_second", "waiting")
    return [{k: v for k, v in record.items() if k not in clocks} for record in folder.log.records()]


slow = pytest.mark.slow
OFTEN = (2, 9, 11, 12, 21)  # before the first checkpoint, after one, at the end of an epoch, after it, in the last one


@pytest.mark.parametrize(
    ("framework", "name", "stops"),
    [
        ("torch", "sgd", OFTEN),
        ("torch", "adam", OFTEN),
        ("torch", "adamw", OFTEN),
        ("mindspore", "sgd", (9,)),
        pytest.param("mindspore", "sgd", OFTEN, marks=slow),
        pytest.param("mindspore", "adam", (9,), marks=slow),
        pytest.param("mindspore", "adamw", (9,), marks=slow),
    ],
)
def test_interrupted(framework, with_optimizer, tmp_path, stop, name, stops):
    pytest.importorskip(framework)
    recipe = with_optimizer(name)
    keywords = {"framework": framework, "log_steps": 1, "checkpoint_steps": 4}
    whole = train("maam_digits", recipe, out=tmp_path / "whole", **keywords)
    for count, at in enumerate(stops):
        stop("maam_digits", recipe, out=tmp_path / "parts", resume=count > 0, at=at, **keywords)
    parts = train("maam_digits", recipe, out=tmp_path / "parts", resume=True, **keywords)
    assert same(read_checkpoint(whole.last), read_checkpoint(parts.last))
    assert without_times(whole) == without_times(parts)
    assert whole.final.read_bytes() == parts.final.read_bytes()
    assert whole.best.read_bytes() == parts.best.read_bytes()
    assert len(json.loads(parts.run.read_text())["sessions"]) == len(stops) + 1


@pytest.mark.parametrize(
    ("framework", "precision"), [("torch", "bf16"), ("torch", "fp16"), pytest.param("mindspore", "fp16", marks=slow)]
)
def test_interrupted_in_half_precision(framework, precision, recipe, tmp_path, stop):
    """The scale of the loss and the skipped steps of fp16 go along."""
    pytest.importorskip(framework)
    recipe = recipe.replaced({"precision": precision})
    keywords = {"framework": framework, "log_steps": 1, "checkpoint_steps": 4}
    whole = train("maam_digits", recipe, out=tmp_path / "whole", **keywords)
    stop("maam_digits", recipe, out=tmp_path / "parts", at=9, **keywords)
    parts = train("maam_digits", recipe, out=tmp_path / "parts", resume=True, **keywords)
    assert read_checkpoint(parts.last).recipe.precision == precision
    assert whole.last.read_bytes() == parts.last.read_bytes()
    assert without_times(whole) == without_times(parts)


def test_resuming_what_is_over_changes_nothing(recipe, tmp_path):
    done = train("maam_digits", recipe, out=tmp_path / "run")
    before = done.final.read_bytes(), done.last.read_bytes()
    again = train("maam_digits", recipe, out=tmp_path / "run", resume=True)
    assert (again.final.read_bytes(), again.last.read_bytes()) == before


def test_another_seed_gives_another_model(recipe, tmp_path):
    runs = [train("maam_digits", recipe.replaced({"seed": s, "epochs": 1}), out=tmp_path / str(s)) for s in (0, 1)]
    assert not same(*(read_checkpoint(run.last) for run in runs))


def test_auto_keeps_the_precision_of_the_run(recipe, tmp_path, stop, monkeypatch):
    """What is fastest is measured, so it might come out otherwise the next time."""
    recipe = recipe.replaced({"precision": "auto"})
    monkeypatch.setattr("maam.torch.devices.has_fast_bf16", lambda: True)
    keywords = {"out": tmp_path / "run", "log_steps": 1, "checkpoint_steps": 4}
    stop("maam_digits", recipe, at=5, **keywords)
    monkeypatch.setattr("maam.torch.devices.has_fast_bf16", lambda: False)
    run = train("maam_digits", recipe, resume=True, **keywords)
    sessions = json.loads(run.run.read_text())["sessions"]
    assert [session["recipe"]["precision"] for session in sessions] == ["bf16", "bf16"]
    assert read_checkpoint(run.last).recipe.precision == "bf16"


def test_dropout_is_drawn_from_seed_and_step(recipe, tmp_path, stop, monkeypatch):
    def with_dropout(name, **overrides):
        node = spec.preset(name, **overrides)
        children = {**node.children, "dropout": spec.Dropout(p=0.5)}
        order = [name for name in children if name != "dropout"]
        order.insert(-1, "dropout")
        return node.replace(children={name: children[name] for name in order})

    monkeypatch.setattr("maam.training.recipe_files.preset", with_dropout)
    keywords = {"log_steps": 1, "checkpoint_steps": 4}
    whole = train("maam_digits", recipe, out=tmp_path / "whole", **keywords)
    stop("maam_digits", recipe, out=tmp_path / "parts", at=9, **keywords)
    parts = train("maam_digits", recipe, out=tmp_path / "parts", resume=True, **keywords)
    assert "dropout" in whole.final.read_bytes()[:100_000].decode("latin1")
    assert same(read_checkpoint(whole.last), read_checkpoint(parts.last))
