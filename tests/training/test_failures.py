"""Errors that stop a run: their messages, before anything is written if possible, and no loss of what was written."""

import errno
import os
import re
import shutil
import tempfile
from functools import partial
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest

from maam import _io, spec
from maam.backend.optimizer import LARGEST, LARGEST_RATE
from maam.backend.registry import load_training_backend
from maam.errors import DataError, DeviceError, RecipeError, SpecError, TrainingError
from maam.training import Optimizer, default_recipe, train
from maam.training import run_dir as logs
from maam.training.report import draw_pictures
from maam.training.run_dir import WRITTEN, RunFolder
from tests.errors import error_of

NO_SPACE = "No space left on device"
DURING_TRAINING = ("run.json", "log.jsonl", *(f"{name}.safetensors" for name in ("last", "previous", "best", "final")))
NO_MODEL = default_recipe("maam_digits").replaced({"model": None})
EXPECTED = "expected the name of a preset or a file"
OTHER = r"\(-o overrides.in_channels=1 -o overrides.image_size=8\)"
TEN_CLASSES = r"num_classes in the recipe \(-o overrides.num_classes=10\)"
NO_MATCH, COUNT = "matches no parameter of the model", "expected an integer of at least 1, got"
OPTIONS = ("model", "recipe", "device", "framework", "log_steps", "checkpoint_steps")
EIGHT = "data digits has images of 8x8; expected at most "
ASCEND = "device 'ascend' is not available to MindSpore on this machine; available: cpu"
BF16 = "precision 'bf16': MindSpore does not support it on cpu; supported: fp32, fp16"
WILD = {"optimizer.lr": 1e30, "schedule.name": "constant", "clip_norm": None, "ema_decay": None}
refusal = partial(error_of, TrainingError, train, "maam_digits")


def fails_on_full_disk(name, *arguments, **keywords):
    """Train, but fail to make the temporary file from which the file `name` is written; return the error's message."""
    make = tempfile.mkstemp

    def full(*arguments, prefix, **keywords):
        if prefix == f".{name}.":
            raise OSError(errno.ENOSPC, NO_SPACE, name)
        return make(*arguments, prefix=prefix, **keywords)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_io.tempfile, "mkstemp", full)
        return refusal(*arguments, **keywords)


@pytest.mark.parametrize("name", DURING_TRAINING)
def test_full_disk_during_training(short, finished, tmp_path, name):
    """The error names the file, and the resumed run ends with the same bytes."""
    out = tmp_path / "run"
    assert re.search(f"{name}.*{NO_SPACE}", fails_on_full_disk(name, short, out=out, checkpoint_steps=4))
    if name == "run.json":
        shutil.rmtree(out)  # nothing was written, so there is no run to resume
    run = train("maam_digits", short, out=out, resume="auto", checkpoint_steps=4)
    for file in (run.final, run.best, run.last):
        assert file.read_bytes() == (finished / file.name).read_bytes()


@pytest.mark.parametrize("name", sorted(set(WRITTEN) - set(DURING_TRAINING)))
def test_full_disk_during_the_report(short, done, name, monkeypatch):
    monkeypatch.setattr("maam.training.report.draw_pictures", draw_pictures)
    (done.path / name).unlink()
    found = fails_on_full_disk(name, short, out=done.path, resume=True)
    assert re.search(f"{name}.*{NO_SPACE}; training is complete, and the weights", found)
    train("maam_digits", short, out=done.path, resume=True)
    assert {path.name for path in done.path.iterdir()} == set(WRITTEN) - {done.previous.name}  # there was one write


def test_log_that_cannot_be_written(short, finished, tmp_path, monkeypatch):
    full = Mock(side_effect=OSError(errno.ENOSPC, NO_SPACE))
    with monkeypatch.context() as patch:
        patch.setattr(logs, "os", SimpleNamespace(**{**vars(os), "fsync": full}))
        found = refusal(short, out=tmp_path / "run")
    assert f"log.jsonl: cannot be written: {NO_SPACE}; the checkpoints are intact" in found
    run = train("maam_digits", short, out=tmp_path / "run", resume=True)
    assert run.final.read_bytes() == RunFolder(finished).final.read_bytes()
    monkeypatch.setattr(RunFolder, "open", lambda self, resume: (self.path / "log.jsonl").mkdir(parents=True))
    assert "log.jsonl" in refusal(short, out=tmp_path / "folder")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": spec.preset("maam_digits")}, RecipeError, f"^model: {EXPECTED}, got an object of type Model; "),
        ({"model": spec.preset}, RecipeError, f"^model: {EXPECTED}, got an object of type function; "),
        ({"recipe": 3}, RecipeError, "^recipe: expected a maam.training.Recipe or its name, got an object of type int"),
        ({"model": None, "recipe": NO_MODEL}, RecipeError, "no model to train"),
        ({"device": "cuda"}, DeviceError, "device 'cuda' is not available to PyTorch on this machine; available: cpu"),
        ({"device": "tpu"}, DeviceError, "device: expected one of cpu, cuda, ascend, got 'tpu'"),
        ({"framework": "mindspore", "device": "ascend"}, DeviceError, ASCEND),
        ({"framework": "mindspore", "precision": "bf16"}, DeviceError, BF16),
        ({"framework": "jax"}, SpecError, "framework: expected one of torch, mindspore, got 'jax'"),
        ({"framework": "reference"}, SpecError, "got 'reference'; reference cannot be used for training"),
        ({"batch_size": 5000}, DataError, "batch_size is 5000, and dataset has 1438 images; expected at most 1438"),
        ({"overrides.num_classes": 7}, RecipeError, rf"has 10 classes, .* outputs \(7,\); .* {TEN_CLASSES}"),
        ({"overrides.in_channels": 3}, RecipeError, rf"digits has images of 1x8x8 .* takes \(N, 3, 8, 8\); .*{OTHER}"),
        ({"augmentation.padding": 8}, RecipeError, f"augmentation.padding: 8, but {EIGHT}7: -o augmentation.padding=1"),
        ({"augmentation.cutout": 9}, RecipeError, "augmentation.cutout: 9, but .* expected at most 8"),
        ({"freeze": ["stem.*"]}, SpecError, f"freeze: 'stem.*' {NO_MATCH}; its first parameters: agents.0.conv1"),
        ({"freeze": ["agents.0.conv1.wieght"]}, SpecError, f"{NO_MATCH}; did you mean 'agents.0.conv1.weight'?"),
        ({"freeze": ["*"]}, SpecError, r"freeze: \* matches all parameters; expected some to train"),
        ({"log_steps": 0}, TrainingError, f"^log_steps: {COUNT}"),
        *(({"checkpoint_steps": count}, TrainingError, f"^checkpoint_steps: {COUNT}") for count in (0, 2.5)),
    ],
)
def test_wrong_arguments_and_recipes(refuses, recipe, monkeypatch, arguments, error, message):
    if arguments.get("framework") == "mindspore":
        pytest.importorskip("mindspore")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    own = {name: arguments[name] for name in OPTIONS if name in arguments}
    recipe = recipe.replaced({name: value for name, value in arguments.items() if name not in own})
    refuses(error, message, **{"model": "maam_digits", "recipe": recipe, **own})


def test_loss_that_is_not_finite(framework, recipe, tmp_path):
    out = tmp_path / "run"
    found = refusal(recipe.replaced(WILD), out=out, framework=framework, checkpoint_steps=1)
    step = int(found.removeprefix("the loss of step ").split()[0])
    assert 2 <= step <= 4
    last = f"the last good checkpoint is {out / 'last.safetensors'}, of step {step - 1}"
    assert f"{last}; try a smaller optimizer.lr, or clip_norm" in found
    if framework == "torch":
        assert "there is no earlier checkpoint" in refusal(recipe.replaced(WILD), out=tmp_path / "without")
        assert not (tmp_path / "without" / "last.safetensors").exists()


def test_weights_that_are_not_finite(recipe, tmp_path, monkeypatch):
    """They are neither the last checkpoint nor the best weights."""
    changes = {"epochs": 1, "batch_size": 256, "optimizer.lr": 100.0, "schedule.name": "constant", "precision": "fp32"}
    wild, out = default_recipe("maam_digits").replaced(changes), tmp_path / "wild"
    found = refusal(wild, out=out, checkpoint_steps=1)
    step = int(found.removeprefix("the weights after step ").split()[0])
    assert re.search(rf"after step {step} are not finite: model/.*running_var", found)
    last = f"the last good checkpoint is {out / 'last.safetensors'}, of step {step - 1}; try a smaller optimizer.lr"
    assert last in found
    assert RunFolder(out).read_last().state.step == step - 1
    monkeypatch.setattr("maam.training.loop.find_not_finite", lambda checkpoint: ["model/reduce.conv.weight"])
    assert "the weights after step 11 are not finite" in refusal(recipe, out=tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"run.json", "log.jsonl"}


@pytest.mark.parametrize("name", ["sgd", "adamw", pytest.param("adam", marks=pytest.mark.slow)])
def test_largest_settings_cause_no_error(framework, name):
    """The results may be infinite or NaN, but the framework raises no error."""
    optimizer = Optimizer(name=name, lr=LARGEST_RATE, weight_decay=LARGEST, decay="all")
    backend = load_training_backend(framework)
    node = spec.Sequential(children={"linear": spec.Linear(in_features=4, out_features=3)})
    trainer = backend.make_training_runner(node, seed=0, device=backend.select_device("cpu")).trainer(optimizer)
    for _ in range(3):
        trainer.step(np.ones((2, 4), np.float32), np.array([0, 1], np.int32), optimizer.lr)
    assert trainer.read_state().step == 3
