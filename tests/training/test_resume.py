"""A run that was interrupted gives, bit for bit, what one gives that was not."""

import json

import numpy as np
import pytest

from maam.training import train
from maam.training.checkpoint import read_checkpoint
from maam.training.folder import RunFolder

STEPS = 22


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
def test_interrupted(framework, recipe, tmp_path, stop, name, stops):
    pytest.importorskip(framework)
    recipe = with_optimizer(recipe, name)
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


def with_optimizer(recipe, name):
    """The recipe with another optimizer, at a rate that suits it."""
    return recipe if name == "sgd" else recipe.replaced({"optimizer": {"name": name, "lr": 0.003}})


def test_resuming_what_is_over_changes_nothing(recipe, tmp_path):
    done = train("maam_digits", recipe, out=tmp_path / "run")
    before = done.final.read_bytes(), done.last.read_bytes()
    again = train("maam_digits", recipe, out=tmp_path / "run", resume=True)
    assert (again.final.read_bytes(), again.last.read_bytes()) == before


def test_another_seed_gives_another_model(recipe, tmp_path):
    runs = [train("maam_digits", recipe.replaced({"seed": s, "epochs": 1}), out=tmp_path / str(s)) for s in (0, 1)]
    assert not same(*(read_checkpoint(run.last) for run in runs))


@pytest.mark.parametrize(
    ("first", "then", "name"),
    [
        ("torch", "mindspore", "sgd"),
        ("mindspore", "torch", "adamw"),
        pytest.param("torch", "mindspore", "adamw", marks=slow),
        pytest.param("mindspore", "torch", "sgd", marks=slow),
    ],
)
def test_going_on_in_the_other_framework(recipe, tmp_path, stop, first, then, name):
    """The ten steps after the switch are those that the first framework would have made, in the stepwise bound."""
    for framework in (first, then):
        pytest.importorskip(framework)
    recipe = with_optimizer(recipe, name)
    found = {}
    for framework in (first, then):
        out = tmp_path / framework
        stop("maam_digits", recipe, out=out, framework=first, at=12, log_steps=1, checkpoint_steps=4)
        train("maam_digits", recipe, out=out, framework=framework, resume=True, log_steps=1, checkpoint_steps=4)
        found[framework] = RunFolder(out)
    checkpoints = [read_checkpoint(folder.last) for folder in found.values()]
    assert [checkpoint.state.step for checkpoint in checkpoints] == [STEPS, STEPS]
    for one, other in zip(*(parts(checkpoint) for checkpoint in checkpoints), strict=True):
        largest = max(float(np.abs(one).max()), 1e-3)
        np.testing.assert_allclose(one, other, rtol=2e-2, atol=2e-2 * largest)
    records = [without_times(folder) for folder in found.values()]
    losses = [[r["losses"][0] for r in run if r["kind"] == "steps"] for run in records]
    np.testing.assert_allclose(losses[0][:9], losses[1][:9], rtol=1e-4)
    np.testing.assert_allclose(losses[0][9:], losses[1][9:], rtol=2e-2)
