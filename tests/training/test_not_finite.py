"""What is not finite stops a run before it replaces what is."""

import numpy as np
import pytest

from maam import spec
from maam.backend.optimizer import LARGEST, LARGEST_RATE
from maam.backend.registry import find_room
from maam.errors import TrainingError
from maam.training import Optimizer, default_recipe, train
from maam.training.checkpoint import find_not_finite, read_checkpoint


def test_a_loss_that_is_not_finite(framework, recipe, tmp_path):
    wild = {"optimizer.lr": 1e30, "schedule.name": "constant", "clip_norm": None, "ema_decay": None}
    with pytest.raises(TrainingError) as caught:
        train("maam_digits", recipe.replaced(wild), out=tmp_path / "run", framework=framework, checkpoint_steps=1)
    text = str(caught.value)
    step = int(text.removeprefix("the loss of step ").split()[0])
    assert 2 <= step <= 4
    last = tmp_path / "run" / "last.safetensors"
    assert f"the last good checkpoint is {last}, of step {step - 1}" in text
    assert "try a smaller optimizer.lr, or clip_norm" in text


def test_no_checkpoint_before_the_loss_went_wrong(recipe, tmp_path):
    wild = {"optimizer.lr": 1e30, "schedule.name": "constant", "clip_norm": None, "ema_decay": None}
    with pytest.raises(TrainingError, match="there is no checkpoint before it"):
        train("maam_digits", recipe.replaced(wild), out=tmp_path / "run")
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_weights_that_are_not_finite(tmp_path):
    """Running variances overflow before the loss does."""
    changes = {"epochs": 1, "batch_size": 256, "optimizer.lr": 100.0, "schedule.name": "constant", "precision": "fp32"}
    recipe, last = default_recipe("maam_digits").replaced(changes), tmp_path / "run" / "last.safetensors"
    with pytest.raises(TrainingError, match=r"after step \d+ are not finite: model/.*running_var") as caught:
        train("maam_digits", recipe, out=tmp_path / "run", checkpoint_steps=1)
    step = int(str(caught.value).removeprefix("the weights after step ").split()[0])
    assert f"the last good checkpoint is {last}, of step {step - 1}; try a smaller optimizer.lr" in str(caught.value)
    assert read_checkpoint(last).state.step == step - 1


def test_weights_that_are_not_finite_are_never_the_best(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("maam.training.loop.find_not_finite", lambda checkpoint: ["model/reduce.conv.weight"])
    with pytest.raises(TrainingError, match="the weights after step 11 are not finite"):
        train("maam_digits", recipe, out=tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"run.json", "log.jsonl"}


@pytest.mark.parametrize("section", ["model", "average", "optimizer.momentum_buffer"])
def test_finding_what_is_not_finite(done, section):
    found = read_checkpoint(done.last)
    name = "reduce.conv.weight"
    assert find_not_finite(found) == []
    state = found.state
    arrays = {"model": found.arrays, "average": state.average}.get(section, state.moments.get("momentum_buffer"))
    arrays[name] = np.full_like(arrays[name], np.inf)
    assert find_not_finite(found) == [f"{section}/{name}"]


def test_a_broken_checkpoint_hides_no_error(done):
    assert "of step 11" in done.last_good()
    done.last.write_bytes(b"")
    assert done.last_good().startswith(f"the checkpoint before it is not good ({done.last}: not a safetensors file")


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_the_largest_settings_are_no_crash(framework, name):
    """A step with them may end in what is not finite, but in no error of the framework."""
    optimizer = Optimizer(name=name, lr=LARGEST_RATE, weight_decay=LARGEST, decay="all")
    room = find_room(framework)
    node = spec.Sequential(children={"linear": spec.Linear(in_features=4, out_features=3)})
    trainer = room.make_runner(node, seed=0, device=room.select_device("cpu")).trainer(optimizer)
    for _ in range(3):
        trainer.step(np.ones((2, 4), np.float32), np.array([0, 1], np.int32), optimizer.lr)
    assert trainer.read_state().step == 3
