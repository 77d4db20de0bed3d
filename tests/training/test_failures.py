"""What stops a run, what it says, and that nothing is lost."""

import contextlib
import errno
import json
import shutil
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest

from maam import _io, spec
from maam.backend.convert import convert
from maam.errors import DataError, DeviceError, MaamError, RecipeError, SpecError, TrainingError, WeightsError
from maam.training import default_recipe, evaluate_file, train
from maam.training import run_dir as logs
from maam.training.checkpoint import read_checkpoint, write_checkpoint
from maam.training.run_dir import WRITTEN, RunFolder
from maam.weights import read_weights
from maam.weights.file import read_header_and_arrays, write_safetensors

REPORT = ("results.json", "report.md", "curves.png", "confusion_matrix.png", "fusion.png")


@pytest.mark.parametrize("name", WRITTEN)
def test_a_full_disk_loses_nothing(recipe, done, tmp_path, monkeypatch, name):
    """Whichever file finds no room, the error names it, and the run goes on to the same end."""
    make, message = tempfile.mkstemp, "No space left on device"

    def full(*arguments, prefix, **keywords):
        if prefix == f".{name}.":
            raise OSError(errno.ENOSPC, message, name)
        return make(*arguments, prefix=prefix, **keywords)

    one, out = recipe.replaced({"epochs": 1}), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(_io.tempfile, "mkstemp", full)
        with pytest.raises(TrainingError, match=f"{name}.*{message}") as caught:
            train("maam_digits", one, out=out, checkpoint_steps=4)
    if name in REPORT:
        assert "the run is whole, its weights are" in str(caught.value)
        assert (out / "final.safetensors").read_bytes() == done.final.read_bytes()
    shutil.rmtree(out) if name == "run.json" else None  # nothing was written, so there is no run to go on with
    run = train("maam_digits", one, out=out, resume=True, checkpoint_steps=4)
    for file in ("final", "best", "last"):
        assert getattr(run, file).read_bytes() == getattr(done, file).read_bytes()
    assert {path.name for path in out.iterdir()} == set(WRITTEN)


def test_a_log_without_room(recipe, done, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(logs, "os", SimpleNamespace(fsync=full))
        with pytest.raises(
            TrainingError, match=r"log.jsonl: cannot be written: No space .*; the checkpoints are intact"
        ):
            train("maam_digits", recipe.replaced({"epochs": 1}), out=tmp_path / "run")
    run = train("maam_digits", recipe.replaced({"epochs": 1}), out=tmp_path / "run", resume=True)
    assert run.final.read_bytes() == done.final.read_bytes()


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
def test_arguments_of_another_type(tmp_path, model, recipe, message):
    with pytest.raises(RecipeError) as caught:
        train(model, recipe, out=tmp_path / "run")
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "run").exists()


@contextlib.contextmanager
def untouched(run):
    """What happens within changes no file of a run."""
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.path.iterdir()}
    yield
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.path.iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 1, "optimizer.lr": 0.2}, "the run has another optimizer: "),
        ({"epochs": 1, "seed": 3}, "the run has another seed: 0, not 3; resume with the recipe"),
        ({"epochs": 3}, "the run has another epochs: 1, not 3"),
    ],
)
def test_resuming_with_another_recipe(recipe, done, changes, message):
    with untouched(done), pytest.raises(TrainingError, match=message):
        train("maam_digits", recipe.replaced(changes), out=done.path, resume=True)


def test_resuming_another_model(recipe, done):
    other = recipe.replaced({"epochs": 1, "overrides.hidden_features": 16})
    with untouched(done), pytest.raises(TrainingError, match="a checkpoint of another model than maam_digits"):
        train("maam_digits", other, out=done.path, resume=True)


@pytest.mark.parametrize("size", [0, 7, 100, 5000])
def test_a_checkpoint_cut_short(recipe, done, size):
    done.last.write_bytes(done.last.read_bytes()[:size])
    cut = pytest.raises(TrainingError, match=r"last.safetensors: not a safetensors file, or cut short")
    with untouched(done), cut:
        train("maam_digits", recipe.replaced({"epochs": 1}), out=done.path, resume=True)


def change_header(path, **fields):
    header, arrays = read_header_and_arrays(path)
    write_safetensors(path, arrays, {**header, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"progress": "{}"},
        {"progress": "nonsense"},
        {"progress": '{"step": "x", "loss_scale": null, "best_accuracy": 0}'},
        {"progress": '{"step": 1, "loss_scale": [1], "best_accuracy": 0}'},
        {"recipe": "[]"},
        {"recipe": '{"epochs": 0}'},
        {"spec": "{"},
    ],
)
def test_a_broken_header(done, fields):
    change_header(done.last, **fields)
    with pytest.raises(TrainingError, match="the checkpoint's header is broken"):
        read_checkpoint(done.last)


def test_a_checkpoint_of_before_skipped_steps_were_counted(done):
    change_header(done.last, progress='{"step": 11, "loss_scale": null, "best_accuracy": 0.5}')
    assert read_checkpoint(done.last).state.skipped == 0


def test_checkpoints_that_are_none(done):
    with pytest.raises(TrainingError, match=r"final.safetensors: no training checkpoint of this version"):
        read_checkpoint(done.final)
    change_header(done.last, format_version="99")
    with pytest.raises(TrainingError, match="no training checkpoint of this version"):
        read_checkpoint(done.last)


def test_arrays_that_do_not_fit(done):
    header, arrays = read_header_and_arrays(done.last)
    name = next(name for name in arrays if name.startswith("optimizer.momentum_buffer/"))
    for wrong, message in (
        ({k: v for k, v in arrays.items() if k != name}, "momentum_buffer: these arrays do not fit"),
        ({**arrays, name: arrays[name][:1]}, "momentum_buffer: these arrays do not fit"),
        ({**arrays, "model/stranger": np.zeros(1, np.float32)}, "model: these arrays do not fit"),
        ({**arrays, name: np.full_like(arrays[name], np.nan)}, "momentum_buffer: not finite"),
    ):
        write_safetensors(done.last, wrong, header)
        with pytest.raises(TrainingError, match=message):
            read_checkpoint(done.last)


def test_a_checkpoint_is_no_weights_file(done):
    with pytest.raises(WeightsError, match=r"a training checkpoint; .* best.safetensors and, .* final.safetensors"):
        read_weights(done.last)
    with pytest.raises(WeightsError, match=r"a training checkpoint; .* best.safetensors and, .* final.safetensors"):
        convert(done.last, done.path / "other.safetensors", "maam_digits")


@pytest.mark.parametrize("at", ["write", "flush"])
def test_a_full_disk_leaves_the_checkpoint_before(done, monkeypatch, at):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = done.last.read_bytes()
    checkpoint = read_checkpoint(done.last)
    if at == "write":
        monkeypatch.setattr("pathlib.Path.write_bytes", full)
    else:
        monkeypatch.setattr(_io.os, "fsync", full)
    with pytest.raises(TrainingError, match="No space left on device; the checkpoint before it is intact"):
        write_checkpoint(done.last, checkpoint)
    monkeypatch.undo()
    assert done.last.read_bytes() == before
    assert [path for path in done.path.iterdir() if path.name.startswith(".")] == []


def test_a_log_that_cannot_be_written(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(RunFolder, "open", lambda self, resume: (self.path / "log.jsonl").mkdir(parents=True))
    with pytest.raises(MaamError, match=r"log.jsonl"):
        train("maam_digits", recipe, out=tmp_path / "run")


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"device": "cuda"}, DeviceError, "device 'cuda' is not available to PyTorch here; available: cpu"),
        ({"device": "tpu"}, DeviceError, "device: expected one of cpu, cuda, ascend, got 'tpu'"),
        ({"framework": "jax"}, SpecError, "framework: expected one of torch, mindspore, got 'jax'"),
        ({"framework": "reference"}, SpecError, "got 'reference'; the reference evaluates alone"),
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
    with pytest.raises(DeviceError, match="precision 'bf16': MindSpore does not support it on cpu; supported: fp32, fp16"):
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


def test_the_figures_of_a_report(done):
    """Those of the weights that it saved, computed from the definitions."""
    found = evaluate_file(done.path, "digits", framework="torch")
    counts = np.zeros((10, 10))  # [label, prediction]
    np.add.at(counts, (found.labels, found.predictions), 1)
    right = np.diag(counts)
    precision, recall = right / np.maximum(counts.sum(0), 1), right / counts.sum(1)
    f1 = 2 * right / (counts.sum(0) + counts.sum(1))
    results = json.loads((done.path / "results.json").read_text())
    expected = {"accuracy": right.sum() / counts.sum(), "f1": f1.mean()}
    expected |= {"precision": precision.mean(), "recall": recall.mean()}
    assert {name: results[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    report = (done.path / "report.md").read_text()
    assert f"| accuracy, last epoch | {expected['accuracy']:.2%} |" in report
    for name, title in (("f1", "macro F1"), ("precision", "macro precision"), ("recall", "macro recall")):
        assert f"| {title} | {expected[name]:.4f} |" in report


def test_a_report_names_each_session(recipe, tmp_path, monkeypatch):
    pytest.importorskip("mindspore")
    for framework in ("torch", "mindspore", "mindspore"):
        monkeypatch.setattr("maam.training.run.command_line", lambda name=framework: f"maam train on {name}")
        run = train("maam_digits", recipe.replaced({"epochs": 1}), out=tmp_path, framework=framework, resume=True)
    lines = (run.path / "report.md").read_text().splitlines()
    assert [line for line in lines if line.startswith("Command")] == [
        "Command: `maam train on torch`",
        "Command: `maam train on mindspore`",
    ]
    assert [line.split(" on ")[0] for line in lines if " on cpu; " in line] == ["torch", "mindspore"]


def test_a_run_says_how_it_was_made(done):
    session = json.loads(done.run.read_text())["sessions"][-1]
    assert session["recipe"]["precision"] == "fp32"
    assert session["environment"]["torch"]
    report = (done.path / "report.md").read_text()
    for part in ("accuracy, last epoch", "macro F1", "waiting for data", "Command: ", "](fusion.png)"):
        assert part in report
    assert spec.preset("maam_digits") == read_weights(done.best)[0]
    assert default_recipe("maam_digits").model == "maam_digits"
