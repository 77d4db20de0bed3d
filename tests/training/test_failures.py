"""Errors that stop a run: their messages, before anything is written if possible, and no loss of what was written."""

import contextlib
import errno
import os
import shutil
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest

from maam import _io, spec
from maam.backend.optimizer import LARGEST, LARGEST_RATE
from maam.backend.registry import load_training_backend
from maam.errors import DataError, DeviceError, RecipeError, SpecError, TrainingError
from maam.training import Optimizer, default_recipe, train
from maam.training import run_dir as logs
from maam.training.checkpoint import read_checkpoint
from maam.training.run_dir import WRITTEN, RunFolder

NO_SPACE = "No space left on device"
DURING_TRAINING = ("run.json", "log.jsonl", "last.safetensors", "best.safetensors", "final.safetensors")
WILD = {"optimizer.lr": 1e30, "schedule.name": "constant", "clip_norm": None, "ema_decay": None}


@pytest.fixture
def fill_disk(monkeypatch):
    """Return a context in which a file cannot be written."""

    def fill(name):
        make = tempfile.mkstemp

        def full(*arguments, prefix, **keywords):
            if prefix == f".{name}.":
                raise OSError(errno.ENOSPC, NO_SPACE, name)
            return make(*arguments, prefix=prefix, **keywords)

        with monkeypatch.context() as patch:
            patch.setattr(_io.tempfile, "mkstemp", full)
            yield

    return contextlib.contextmanager(fill)


@pytest.mark.parametrize("name", DURING_TRAINING)
def test_full_disk_during_training(short, finished, tmp_path, fill_disk, name):
    """The error names the file, and the resumed run ends with the same bytes."""
    out = tmp_path / "run"
    with fill_disk(name), pytest.raises(TrainingError, match=f"{name}.*{NO_SPACE}"):
        train("maam_digits", short, out=out, checkpoint_steps=4)
    if name == "run.json":
        shutil.rmtree(out)  # nothing was written, so there is no run to resume
    run = train("maam_digits", short, out=out, resume=True, checkpoint_steps=4)
    for file in ("final", "best", "last"):
        assert getattr(run, file).read_bytes() == getattr(RunFolder(finished), file).read_bytes()


@pytest.mark.usefixtures("pictures")
@pytest.mark.parametrize("name", sorted(set(WRITTEN) - set(DURING_TRAINING)))
def test_full_disk_during_the_report(short, done, fill_disk, name):
    (done.path / name).unlink()
    with fill_disk(name), pytest.raises(TrainingError, match=f"{name}.*{NO_SPACE}; training is complete, and the wei"):
        train("maam_digits", short, out=done.path, resume=True)
    train("maam_digits", short, out=done.path, resume=True)
    assert {path.name for path in done.path.iterdir()} == set(WRITTEN)


def test_full_disk_for_the_log(short, finished, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, NO_SPACE)

    with monkeypatch.context() as patch:
        patch.setattr(logs, "os", SimpleNamespace(**{**vars(os), "fsync": full}))
        with pytest.raises(
            TrainingError, match=f"log.jsonl: cannot be written: {NO_SPACE}; the checkpoints are intact"
        ):
            train("maam_digits", short, out=tmp_path / "run")
    run = train("maam_digits", short, out=tmp_path / "run", resume=True)
    assert run.final.read_bytes() == RunFolder(finished).final.read_bytes()


def test_log_that_is_a_folder(short, tmp_path, monkeypatch):
    monkeypatch.setattr(RunFolder, "open", lambda self, resume: (self.path / "log.jsonl").mkdir(parents=True))
    with pytest.raises(TrainingError, match=r"log.jsonl"):
        train("maam_digits", short, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("model", "recipe", "message"),
    [
        (
            spec.preset("maam_digits"),
            None,
            "model: expected the name of a preset or a file, got an object of type Model; ",
        ),
        (spec.preset, None, "model: expected the name of a preset or a file, got an object of type function; "),
        ("maam_digits", "digits", "recipe: expected a maam.training.Recipe, got an object of type str; "),
    ],
)
def test_arguments_of_wrong_types(tmp_path, model, recipe, message):
    with pytest.raises(RecipeError) as caught:
        train(model, recipe, out=tmp_path / "run")
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"device": "cuda"}, DeviceError, "device 'cuda' is not available to PyTorch here; available: cpu"),
        ({"device": "tpu"}, DeviceError, "device: expected one of cpu, cuda, ascend, got 'tpu'"),
        ({"framework": "jax"}, SpecError, "framework: expected one of torch, mindspore, got 'jax'"),
        ({"framework": "reference"}, SpecError, "got 'reference'; reference cannot be used for training"),
    ],
)
def test_devices_and_frameworks(recipe, tmp_path, keywords, error, message):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(error, match=message):
        train("maam_digits", recipe, out=tmp_path / "run", **keywords)
    assert not (tmp_path / "run").exists()


def test_devices_of_mindspore(recipe, tmp_path):
    pytest.importorskip("mindspore")
    keywords = {"out": tmp_path / "run", "framework": "mindspore"}
    with pytest.raises(DeviceError, match="device 'ascend' is not available to MindSpore here; available: cpu"):
        train("maam_digits", recipe, device="ascend", **keywords)
    with pytest.raises(
        DeviceError, match="precision 'bf16': MindSpore does not support it on cpu; supported: fp32, fp16"
    ):
        train("maam_digits", recipe.replaced({"precision": "bf16"}), **keywords)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"batch_size": 5000}, DataError, "batch_size is 5000, and dataset has 1438 images; expected at most 1438"),
        ({"data": "cifar10"}, DataError, r"data cifar10 needs root \(--root DIR\)"),
        (
            {"overrides.num_classes": 7},
            RecipeError,
            r"has 10 classes, .* outputs \(7,\); .* num_classes in the recipe \(-o overrides.num_classes=10\)",
        ),
        ({"overrides.in_channels": 3}, RecipeError, "data digits: .*; choose a preset for such images"),
        (
            {"augmentation.padding": 8},
            RecipeError,
            "augmentation.padding: 8, but data digits has images of 8x8; expected at most 7: -o augmentation.padding=1",
        ),
        ({"augmentation.cutout": 9}, RecipeError, "augmentation.cutout: 9, but .* expected at most 8"),
    ],
)
def test_data_that_does_not_fit(recipe, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        train("maam_digits", recipe.replaced(changes), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_model(recipe, tmp_path):
    with pytest.raises(RecipeError, match="no model to train: name a preset, or a recipe"):
        train(out=tmp_path / "run")
    with pytest.raises(RecipeError, match="no model to train"):
        train(None, recipe.replaced({"model": None}), out=tmp_path / "run")


def test_loss_that_is_not_finite(framework, recipe, tmp_path):
    with pytest.raises(TrainingError) as caught:
        train("maam_digits", recipe.replaced(WILD), out=tmp_path / "run", framework=framework, checkpoint_steps=1)
    text = str(caught.value)
    step = int(text.removeprefix("the loss of step ").split()[0])
    assert 2 <= step <= 4
    last = tmp_path / "run" / "last.safetensors"
    assert f"the last good checkpoint is {last}, of step {step - 1}" in text
    assert "try a smaller optimizer.lr, or clip_norm" in text


def test_loss_that_is_not_finite_before_the_first_checkpoint(recipe, tmp_path):
    with pytest.raises(TrainingError, match="there is no earlier checkpoint"):
        train("maam_digits", recipe.replaced(WILD), out=tmp_path / "run")
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


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_largest_settings_cause_no_error(framework, name):
    """The results may be infinite or NaN, but the framework raises no error."""
    optimizer = Optimizer(name=name, lr=LARGEST_RATE, weight_decay=LARGEST, decay="all")
    backend = load_training_backend(framework)
    node = spec.Sequential(children={"linear": spec.Linear(in_features=4, out_features=3)})
    trainer = backend.make_training_runner(node, seed=0, device=backend.select_device("cpu")).trainer(optimizer)
    for _ in range(3):
        trainer.step(np.ones((2, 4), np.float32), np.array([0, 1], np.int32), optimizer.lr)
    assert trainer.read_state().step == 3
