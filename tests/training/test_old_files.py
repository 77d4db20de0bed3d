"""Files that earlier versions wrote: weights files, checkpoints and run folders still load, resume and evaluate.

The folders in tests/training/old are runs of a small maam_digits, written by commit e12d8e8:

- torch: a finished run with SGD, an average of the weights, clipping and label smoothing;
- mindspore: a finished run with AdamW and a cosine schedule;
- interrupted: a MindSpore run with Adam in float16, stopped at step 8 of 10, after the checkpoint of step 6.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from maam.backend.protocol import LossScale
from maam.training import evaluate_file, read_runs, train
from maam.training.checkpoint import read_checkpoint
from maam.training.run_dir import RunFolder
from maam.weights import read_weights

OLD = Path(__file__).with_name("old")
RUNS = ("torch", "mindspore", "interrupted")
FINISHED = ("torch", "mindspore")
LAST_TEST_LOSS = 2.371722
"""Of the interrupted run if it is not interrupted, as commit e12d8e8 logged it."""


@pytest.fixture
def copy(tmp_path):
    return lambda name: RunFolder(shutil.copytree(OLD / name, tmp_path / name))


@pytest.mark.parametrize("name", RUNS)
def test_weights_file_evaluates_as_logged(name):
    folder = RunFolder(OLD / name)
    path = folder.final if name in FINISHED else folder.best
    spec, arrays = read_weights(path)
    assert spec.name == "maam_digits"
    assert {p.name: p.shape for p in spec.parameters()} == {name: array.shape for name, array in arrays.items()}
    found = evaluate_file(path, "digits", framework="reference")
    record = [one for one in folder.log.records() if one["kind"] == "epoch"][-1]
    exact = name in FINISHED  # the interrupted run evaluated in float16
    assert found.accuracy == pytest.approx(record["test_accuracy"], abs=1e-6 if exact else 0.01)
    assert found.loss == pytest.approx(record["test_loss"], rel=1e-5 if exact else 1e-3)


@pytest.mark.parametrize(
    ("name", "step", "moments", "loss_scale"),
    [
        ("torch", 10, ["momentum_buffer"], None),
        ("mindspore", 10, ["exp_avg", "exp_avg_sq"], None),
        ("interrupted", 6, ["exp_avg", "exp_avg_sq"], LossScale(65536.0, 6)),
    ],
)
def test_checkpoint_is_complete(name, step, moments, loss_scale):
    found = read_checkpoint(OLD / name / "last.safetensors")
    assert (found.state.step, list(found.state.moments), found.state.loss_scale) == (step, moments, loss_scale)
    names = {parameter.name for parameter in found.spec.parameters()}
    assert found.arrays.keys() == names
    assert set(found.state.average) == (names if name == "torch" else set())
    assert all(any(np.any(array) for array in moment.values()) for moment in found.state.moments.values())
    best = max(one["test_accuracy"] for one in RunFolder(OLD / name).log.records() if "test_accuracy" in one)
    assert found.best_accuracy == pytest.approx(best, abs=1e-6)


def test_run_folders_are_compared():
    found = {run.name: (len(run.test_accuracy), run.framework, run.recipe.optimizer.name) for run in read_runs(OLD)}
    expected = {"torch": (2, "torch", "sgd"), "mindspore": (2, "mindspore", "adamw")}
    assert found == {**expected, "interrupted": (1, "mindspore", "adam")}
    assert RunFolder(OLD / "torch").class_names() == tuple("0123456789")


@pytest.mark.parametrize("name", FINISHED)
def test_finished_run_is_not_trained_again(copy, name):
    folder = copy(name)
    train("maam_digits", folder.recipe(), out=folder.path, framework=name, resume=True)
    for file in ("final.safetensors", "last.safetensors"):
        assert (folder.path / file).read_bytes() == (OLD / name / file).read_bytes()
    results, before = (json.loads((path / "results.json").read_text()) for path in (folder.path, OLD / name))
    assert results == pytest.approx(before, rel=1e-5)


@pytest.mark.slow_in("mindspore")
def test_interrupted_run_is_resumed(copy, framework):
    """In both frameworks it ends as the run that was not interrupted."""
    folder = copy("interrupted")
    train("maam_digits", folder.recipe(), out=folder.path, framework=framework, resume=True, log_steps=1)
    records = folder.log.records()
    assert [one["step"] for one in records if one["kind"] == "steps"] == list(range(1, 11))
    assert records[-1]["test_loss"] == pytest.approx(LAST_TEST_LOSS, rel=1e-3)
    assert len(folder.sessions()) == 2
    found = evaluate_file(folder.path, "digits", framework="reference")
    assert found.loss == pytest.approx(records[-1]["test_loss"], rel=1e-3)
