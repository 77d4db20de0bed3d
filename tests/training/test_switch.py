"""A run that is resumed in the other framework makes the same steps."""

from collections import defaultdict
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from maam.backend.protocol import OptimizerState
from maam.backend.registry import load_training_backend, make_double, make_runners
from maam.parity.optimizers import Outcome
from maam.parity.stages.steps import take_steps
from maam.parity.subject import Subject
from maam.training import train
from maam.training.checkpoint import Checkpoint, read_checkpoint
from maam.training.run import objective
from maam.training.sources import open_source
from tests.training.conftest import losses_of, stop

BOUNDS = {"norm": 1e-3, "median": 2e-5}
"""Of the difference, array by array: the largest norm, relative to the norm, and the median of the largest elements,
relative to the largest. If two values of a pooling window tie, rounding decides which one gets the gradient, and a few
elements differ by more than rounding errors. `pytest -s` shows the measured figures."""
slow = pytest.mark.slow
THERE, BACK = ("torch", "mindspore"), ("mindspore", "torch")


@pytest.mark.parametrize(("first", "then"), [THERE, pytest.param(*BACK, marks=slow)])
def test_resume_in_the_other_framework(with_optimizer, tmp_path, first, then):
    """The losses are those of the first framework, until training has amplified the rounding errors."""
    recipe, losses = with_optimizer("sgd"), {}
    for framework in (first, then):
        stop(recipe, tmp_path / framework, framework=first, at=12)
        run = train("maam_digits", recipe, framework=framework, out=tmp_path / framework, resume=True)
        assert read_checkpoint(run.last).state.step == 22
        losses[framework] = losses_of(run)
    assert losses[first][:12] == losses[then][:12]
    np.testing.assert_allclose(losses[first][12:14], losses[then][12:14], rtol=1e-4)
    np.testing.assert_allclose(losses[first][14:], losses[then][14:], rtol=5e-2)


@slow
@pytest.mark.parametrize(("first", "then"), [THERE, BACK])
def test_there_and_back(recipe, tmp_path, first, then):
    """Three steps in the other framework do not change the result; all arrays are restored."""
    recipe = recipe.replaced({"epochs": 1, "overrides.act_layer": "silu", "precision": "fp32"})
    out = tmp_path / "run"
    whole = train("maam_digits", recipe, out=tmp_path / "whole", framework=first)
    stop(recipe, out, at=4, framework=first, checkpoint_steps=1)  # after the checkpoint of step 3
    stop(recipe, out, at=7, framework=then, checkpoint_steps=1, resume=True)
    run = train("maam_digits", recipe, out=out, framework=first, resume=True)
    assert [session["framework"] for session in run.sessions()] == [first, then, first]
    found, expected = (arrays_of(read_checkpoint(one.last)) for one in (run, whole))
    assert found.keys() == expected.keys()
    apart = {name: np.linalg.norm(found[name] - array) / np.linalg.norm(array) for name, array in expected.items()}
    print(first, then, max(apart.values()))
    assert max(apart.values()) < 1e-4, apart
    np.testing.assert_allclose(losses_of(run), losses_of(whole), rtol=1e-4)


@slow
@pytest.mark.parametrize(
    ("first", "then", "name"), [(*BACK, "adamw"), (*THERE, "sgd"), (*THERE, "adam"), (*BACK, "sgd")]
)
def test_ten_steps_after_the_switch(with_optimizer, tmp_path, first, then, name):
    """Each step from the same state makes the same updates and moments in both frameworks."""
    checkpoint = stopped(with_optimizer(name), tmp_path, first)
    found = differences(*(start(framework, checkpoint) for framework in (first, then)), checkpoint)
    print(first, then, name, found)
    assert all(found[figure] <= bound for figure, bound in BOUNDS.items()), found


@slow
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_ten_steps_after_the_switch_hold_the_bounds_of_parity(with_optimizer, tmp_path, framework, name):
    """With ReLU, whose kinks parity handles, from the moments of the first framework."""
    pytest.importorskip("mindspore")
    checkpoint = stopped(with_optimizer(name), tmp_path, framework, activation="relu")
    for runner, worst in steps_from(checkpoint).items():
        print(framework, name, runner, worst.step, worst.statistics, worst.crossed)
        assert worst.step.used <= 1, (runner, worst.layer, worst.step)
        assert worst.statistics.used <= 1, (runner, worst.statistics_layer, worst.statistics)


def steps_from(checkpoint):
    """Return, by runner, the differences of ten steps from the float64 reference."""
    network = (checkpoint.spec, checkpoint.arrays)
    runners, missing = make_runners(*network, ("torch", "mindspore"), compiled=False)
    assert not missing
    images, labels = next(iter(open_source(checkpoint.recipe, None, checkpoint.spec).train.epoch(1)))
    subject = Subject(*network, images, labels, runners, make_double(*network))
    state = OptimizerState(checkpoint.state.step, checkpoint.state.moments)
    worst = take_steps(subject, checkpoint.recipe.optimizer, Outcome(dict(checkpoint.arrays), state))
    return {runner.name: one for runner, one in zip(runners, worst, strict=True)}


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_missing_weight_decay_is_noticed(with_optimizer, tmp_path, name):
    checkpoint = stopped(with_optimizer(name), tmp_path, "torch")
    lost = replace(checkpoint, recipe=checkpoint.recipe.replaced({"optimizer.weight_decay": 0.0}))
    found = differences(start("torch", checkpoint), start("torch", lost), checkpoint)
    print(name, found)
    assert found["norm"] > 5 * BOUNDS["norm"], found


def stopped(recipe, folder, framework, activation="silu"):
    """Return the checkpoint of a stopped run, by default with an activation without kinks."""
    recipe = recipe.replaced({"overrides.act_layer": activation, "precision": "fp32"})
    stop(recipe, folder / "run", framework=framework, at=9)
    return read_checkpoint(folder / "run" / "last.safetensors")


def differences(one, other, checkpoint):
    """Return the figures of BOUNDS for ten steps of two trainers, each step from the state of the first one."""
    sums = defaultdict(float)
    for images, labels in islice(open_source(checkpoint.recipe, None, checkpoint.spec).train.epoch(1), 10):
        before = state_of(one, checkpoint)
        for trainer in (one, other):
            trainer.update(trainer.prepare(images, labels), 0.01, 0.9)
        first, second = (changes(before, state_of(trainer, checkpoint)) for trainer in (one, other))
        for name in first:
            sums[name] += np.stack([first[name], second[name]])
        load(other, state_of(one, checkpoint))
    pairs = [(np.abs(a - b), np.abs(a)) for a, b in sums.values()]
    norms = [np.linalg.norm(difference) / np.linalg.norm(size) for difference, size in pairs]
    largest = [difference.max() / size.max() for difference, size in pairs]
    return {"norm": float(max(norms)), "median": float(np.median(largest))}


def changes(before, after):
    """Return the updates of weights, statistics and averages, and the moments, whose updates are mostly rounding."""
    old = {name: array for name, array in arrays_of(before).items() if name.startswith(("model/", "average/"))}
    return {name: array.astype(np.float64) - old.get(name, 0) for name, array in arrays_of(after).items()}


def arrays_of(checkpoint):
    """Return weights, statistics, averages and moments by name."""
    state = checkpoint.state
    sections = {"model": checkpoint.arrays, "average": state.average, **state.moments}
    return {f"{section}/{name}": array for section, arrays in sections.items() for name, array in arrays.items()}


def start(framework, checkpoint):
    backend = load_training_backend(framework)
    runner = backend.make_training_runner(checkpoint.spec, seed=None, device=backend.select_device("cpu"))
    trainer = runner.trainer(checkpoint.recipe.optimizer, objective(checkpoint.recipe))
    load(trainer, checkpoint)
    return trainer


def load(trainer, checkpoint):
    trainer.runner.write_arrays(checkpoint.arrays)
    trainer.write_state(checkpoint.state)


def state_of(trainer, checkpoint):
    return Checkpoint(checkpoint.spec, checkpoint.recipe, trainer.runner.read_arrays(), trainer.read_state())
