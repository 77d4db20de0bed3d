"""Image folders as the data of a run, in both frameworks, on real CIFAR-10 images."""

import shutil

import numpy as np
import pytest

from maam import spec
from maam.data import BrokenImageWarning
from maam.errors import DataError, RecipeError
from maam.training import read_recipe, train
from maam.training.checkpoint import read_checkpoint
from maam.training.recipe import Images
from maam.training.sources import ReadOptions, open_source, open_test
from tests.image_folders import NAMES, write_folder

pytest.importorskip("PIL")
CHANGES = {
    "overrides": {"num_classes": 4, "channels": [4], "num_agents": 1, "image_size": 32},
    "images.size": 32,
    "images.resize": 36,
    "batch_size": 8,
    "epochs": 2,
}


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path / "images", classes=4)


@pytest.fixture
def recipe():
    """Two epochs of four steps."""
    return read_recipe("imagenet_maf").replaced(CHANGES)


@pytest.fixture
def model(recipe):
    return spec.preset("maam_imagenet", **recipe.overrides)


def test_frameworks_read_the_same_batches(root, recipe, model):
    pytest.importorskip("torchvision")
    pytest.importorskip("mindspore")
    sources = [open_source(recipe, root, model, ReadOptions(name)) for name in ("torch", "mindspore")]
    for pair in (tuple(s.train.epoch(1) for s in sources), tuple(s.test_batches() for s in sources)):
        for (x, y), (other_x, other_y) in zip(*pair, strict=True):
            np.testing.assert_array_equal(x, other_x)
            np.testing.assert_array_equal(y, other_y)


def test_source(framework, root, recipe, model):
    source = open_source(recipe, root, model, ReadOptions(framework))
    assert source.class_names == NAMES[:4]
    assert [x.shape for x, _ in source.train.epoch(0)] == [(8, 3, 32, 32)] * 4
    assert [x.shape for x, _ in source.test_batches()] == [(16, 3, 32, 32)]


def test_limited_images_are_from_all_classes(root, model):
    few = open_test("imagefolder", root, model, 4, images=Images(size=32))
    assert sorted(np.concatenate([labels for _, labels in few.epoch(0)])) == [0, 1, 2, 3]
    assert len(few.dataset.spread(1000)) == 4


def test_training(framework, root, recipe, tmp_path):
    run = train("maam_imagenet", recipe, out=tmp_path / "run", root=root, framework=framework, num_workers=1)
    records = [record for record in run.log.records() if record["kind"] == "epoch"]
    assert [record["step"] for record in records] == [4, 8]
    assert all(0 <= record["test_accuracy"] <= record["top5"] == 1 for record in records)  # of four classes
    assert "top-5 accuracy" in (run.path / "report.md").read_text()


def test_resume_in_the_middle_of_an_epoch(root, recipe, tmp_path, stop):
    keywords = {"root": root, "log_steps": 1, "checkpoint_steps": 1}
    whole = train("maam_imagenet", recipe, out=tmp_path / "whole", **keywords)
    stop("maam_imagenet", recipe, out=tmp_path / "parts", resume=False, at=6, **keywords)
    parts = train("maam_imagenet", recipe, out=tmp_path / "parts", resume=True, num_workers=1, **keywords)
    first, second = (read_checkpoint(run.last).arrays for run in (whole, parts))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_broken_images(framework, root, recipe, model):
    broken = root / "train" / NAMES[1] / "03.jpg"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(DataError) as caught:
        list(open_source(recipe, root, model, ReadOptions(framework)).train.epoch(0))
    assert str(caught.value).startswith(f"{broken}: ")
    with pytest.warns(BrokenImageWarning, match=rf"^{broken}: .*; left out$"):
        found = list(open_source(recipe, root, model, ReadOptions(framework, on_broken="skip")).train.epoch(0))
    assert sorted(len(x) for x, _ in found) == [7, 8, 8, 8]


def test_training_skips_a_broken_image(root, recipe, tmp_path):
    broken = root / "train" / NAMES[1] / "03.jpg"
    broken.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        train("maam_imagenet", recipe, out=tmp_path / "stopped", root=root)
    assert str(caught.value).startswith(f"{broken}: an empty file; ")
    with pytest.warns(BrokenImageWarning, match=rf"^{broken}: an empty file; left out$"):
        train("maam_imagenet", recipe, out=tmp_path / "run", on_broken="skip", root=root)


def test_data_that_does_not_fit(framework, root, recipe, model):
    reading = ReadOptions(framework)
    shutil.rmtree(root / "train" / NAMES[3])
    shutil.rmtree(root / "val" / NAMES[3])
    with pytest.raises(RecipeError, match=r"^data imagefolder has 3 classes, but the model has outputs \(4,\); "):
        open_source(recipe, root, model, reading)
    three = spec.with_num_classes(model, 3)
    with pytest.raises(DataError, match=r"^batch_size is 32, and .*train has 24 images; expected at most 24$"):
        open_source(recipe.replaced({"batch_size": 32}), root, three, reading)
    with pytest.raises(
        DataError, match=r"^data imagefolder needs root \(--root DIR\), the folder that contains train and val$"
    ):
        open_source(recipe, None, model, reading)
    with pytest.raises(RecipeError, match=r"^data imagefolder: expected an input .*32, 32\), got .*; "):
        open_source(recipe.replaced({"images.size": 36}), root, spec.preset("cnn", num_classes=3), reading)
    shutil.rmtree(root / "val")
    with pytest.raises(DataError, match=r"val: no such folder; expected "):
        open_source(recipe, root, model, reading)
