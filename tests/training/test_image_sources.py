"""Image folders as the data of a run, in both frameworks, on real CIFAR-10 images."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from maam import spec
from maam.data import BrokenImageWarning
from maam.errors import DataError, RecipeError
from maam.training import read_recipe, train
from maam.training.checkpoint import read_checkpoint
from maam.training.recipe import Images
from maam.training.run_dir import RunFolder
from maam.training.sources import ReadOptions, open_source, open_test
from tests.errors import error_of
from tests.image_folders import NAMES, write_folder
from tests.training.conftest import stop

pytest.importorskip("PIL")
CHANGES = {"model": "maam_imagenet", "images.size": 32, "images.resize": 36, "batch_size": 8, "epochs": 2}
CHANGES |= {"overrides": {"num_classes": 4, "channels": [4], "num_agents": 1, "image_size": 32}}


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path / "images", classes=4)


@pytest.fixture
def recipe():
    return read_recipe("imagenet_maf").replaced(CHANGES)


@pytest.fixture
def model(recipe):
    return spec.preset("maam_imagenet", **recipe.overrides)


@pytest.fixture
def train_with_a_worker(root, recipe, recipe_file):
    """Train in a new process with one worker; a worker that is forked where MindSpore has run can crash."""

    def run(out, *options):
        command = [sys.executable, "-W", "error", "-m", "maam", "train", "--num-workers", "1", *options]
        command += ["--recipe", recipe_file(recipe), "--root", root, "--out", out]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return RunFolder(out)

    return run


def test_frameworks_read_the_same_batches(root, recipe, model):
    pytest.importorskip("torchvision")
    pytest.importorskip("mindspore")
    sources = [open_source(recipe, root, model, ReadOptions(name)) for name in ("torch", "mindspore")]
    assert [source.class_names for source in sources] == [NAMES[:4]] * 2
    torch, mindspore = ([*source.train.epoch(1), *source.test_batches()] for source in sources)
    assert [x.shape for x, _ in torch] == [(8, 3, 32, 32)] * 4 + [(16, 3, 32, 32)]
    for (x, y), (other_x, other_y) in zip(torch, mindspore, strict=True):
        np.testing.assert_array_equal(x, other_x)
        np.testing.assert_array_equal(y, other_y)


def test_limited_images_are_from_all_classes(root, model):
    few = open_test("imagefolder", root, model, 4, images=Images(size=32))
    assert sorted(np.concatenate([labels for _, labels in few.epoch(0)])) == [0, 1, 2, 3]
    assert len(few.dataset.spread(1000)) == 4


@pytest.mark.slow
def test_training(framework, train_with_a_worker, tmp_path):
    run = train_with_a_worker(tmp_path / "run", "--framework", framework)
    records = [record for record in run.log.records() if record["kind"] == "epoch"]
    assert [record["step"] for record in records] == [4, 8]
    assert all(0 <= record["test_accuracy"] <= record["top5"] == 1 for record in records)  # of four classes
    assert "top-5 accuracy" in (run.path / "report.md").read_text()


@pytest.mark.slow
def test_resume_in_the_middle_of_an_epoch(root, recipe, tmp_path, train_with_a_worker):
    whole = train(None, recipe, out=tmp_path / "whole", root=root)
    stop(recipe, tmp_path / "parts", at=6, root=root, checkpoint_steps=1)
    parts = train_with_a_worker(tmp_path / "parts", "--resume")
    first, second = (read_checkpoint(run.last).arrays for run in (whole, parts))
    assert all(np.array_equal(first[name], second[name]) for name in first)


STOPPED_WORKER = """
import multiprocessing, signal, subprocess, sys, time
import maam.torch
crop = maam.data.CenterCrop(size=16)
batches = maam.torch.ImageFolderBatches(maam.data.imagefolder(sys.argv[1]), 1, framing=crop, num_workers=1)
found = batches.epoch(0)
next(found)
worker, = multiprocessing.active_children()
for number in (signal.SIGINT, signal.SIGTERM):
    subprocess.run(["sh", "-c", f"kill -{number:d} {worker.pid}"], check=True)  # this process may end its workers
time.sleep(1)
assert worker.is_alive()
print(1 + len(list(found)))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_signal_to_all_processes(root):
    """The workers live on, so that the training process can end its step and write a checkpoint."""
    command = [sys.executable, "-c", STOPPED_WORKER, str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, str(len(list((root / "train").glob("*/*"))))), done.stderr


def test_training_skips_a_broken_image(root, recipe, tmp_path):
    broken = root / "train" / NAMES[1] / "03.jpg"
    broken.write_bytes(b"")
    message = error_of(DataError, train, None, recipe, out=tmp_path / "stopped", root=root)
    assert message.startswith(f"{broken}: an empty file; ")
    with pytest.warns(BrokenImageWarning, match=rf"^{broken}: an empty file; the image is left out$"):
        train(None, recipe, out=tmp_path / "run", on_broken="skip", root=root)


def test_data_that_does_not_fit(framework, root, recipe, model):
    def message(kind, model, root=root, **changes):
        return error_of(kind, open_source, recipe.replaced(changes), root, model, ReadOptions(framework))

    for split in ("train", "val"):
        shutil.rmtree(root / split / NAMES[3])
    three = spec.with_num_classes(model, 3)
    assert message(RecipeError, model).startswith("data imagefolder has 3 classes, but the model has outputs (4,); ")
    found = message(DataError, three, batch_size=32)
    assert found.startswith("batch_size is 32, and ")
    assert found.endswith("train has 24 images; expected at most 24")
    expected = "data imagefolder needs root (--root DIR), the folder that contains train and val"
    assert message(DataError, model, root=None) == expected
    found = message(RecipeError, spec.preset("cnn", num_classes=3), **{"images.size": 36})
    assert found.startswith("data imagefolder has images of 3x36x36 (channels, height, width), but the model takes ")
    assert "(N, 3, 32, 32); override the options of the preset (-o overrides.in_channels=3 -o overrides.im" in found
    shutil.rmtree(root / "val")
    assert "val: no such folder; expected " in message(DataError, model)
