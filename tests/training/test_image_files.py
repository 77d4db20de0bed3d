"""Image files: folders as the data of a run, on real CIFAR-10 images, and prediction."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from maam import spec
from maam.data import BrokenImageWarning, to_float
from maam.errors import DataError, MaamError, RecipeError, TrainingError, WeightsError
from maam.reference import ReferenceModel
from maam.training import default_recipe, evaluate_file, predict_files, read_recipe, train
from maam.training.checkpoint import read_checkpoint
from maam.training.recipe import Images
from maam.training.run_dir import RunFolder
from maam.training.sources import ReadOptions, open_source, open_test
from maam.weights import read_weights
from tests.errors import error_of
from tests.image_folders import NAMES, SAMPLE, write_folder
from tests.training.conftest import stop

image = pytest.importorskip("PIL.Image")
BACKENDS = ("torch", "mindspore", "reference")
CHANGES = {"model": "maam_imagenet", "images.size": 32, "images.resize": 36, "batch_size": 8, "epochs": 2}
CHANGES |= {"overrides": {"num_classes": 4, "channels": [4], "num_agents": 1, "image_size": 32}}
PIXELS = np.load(SAMPLE)["images"][:6]
"""Real test images, uint8 (6, 3, 32, 32)."""


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path / "images", classes=4)


@pytest.fixture
def recipe():
    return read_recipe("imagenet_maf").replaced(CHANGES)


class TestRuns:
    @pytest.fixture
    def model(self, recipe):
        return spec.preset("maam_imagenet", **recipe.overrides)

    @pytest.fixture
    def train_with_a_worker(self, root, recipe, recipe_file):
        """Train in a new process with one worker; a worker that is forked where MindSpore has run can crash."""

        def run(out, *options):
            command = [sys.executable, "-W", "error", "-m", "maam", "train", "--num-workers", "1", *options]
            command += ["--recipe", recipe_file(recipe), "--root", root, "--out", out]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr
            return RunFolder(out)

        return run

    def test_frameworks_read_the_same_batches(self, root, recipe, model):
        pytest.importorskip("torchvision")
        pytest.importorskip("mindspore")
        sources = [open_source(recipe, root, model, ReadOptions(name)) for name in ("torch", "mindspore")]
        assert [source.class_names for source in sources] == [NAMES[:4]] * 2
        torch, mindspore = ([*source.train.epoch(1), *source.test_batches()] for source in sources)
        assert [x.shape for x, _ in torch] == [(8, 3, 32, 32)] * 4 + [(16, 3, 32, 32)]
        for batch, other in zip(torch, mindspore, strict=True):
            np.testing.assert_equal(batch, other)

    def test_limited_images_are_from_all_classes(self, root, model):
        few = open_test("imagefolder", root, model, 4, images=Images(size=32))
        assert sorted(np.concatenate([labels for _, labels in few.epoch(0)])) == [0, 1, 2, 3]
        assert len(few.dataset.spread(1000)) == 4

    @pytest.mark.slow
    def test_training(self, framework, train_with_a_worker, tmp_path):
        run = train_with_a_worker(tmp_path / "run", "--framework", framework)
        records = [record for record in run.log.records() if record["kind"] == "epoch"]
        assert [record["step"] for record in records] == [4, 8]
        assert all(0 <= record["test_accuracy"] <= record["top5"] == 1 for record in records)  # of four classes
        assert "top-5 accuracy" in (run.path / "report.md").read_text()

    @pytest.mark.slow
    def test_resume_in_the_middle_of_an_epoch(self, root, recipe, tmp_path, train_with_a_worker):
        whole = train(None, recipe, out=tmp_path / "whole", root=root)
        stop(recipe, tmp_path / "parts", at=6, root=root, checkpoint_steps=1)
        parts = train_with_a_worker(tmp_path / "parts", "--resume")
        first, second = (read_checkpoint(run.last).arrays for run in (whole, parts))
        assert all(np.array_equal(first[name], second[name]) for name in first)

    def test_a_broken_image_stops_training_or_is_skipped(self, root, recipe, tmp_path):
        broken = root / "train" / NAMES[1] / "03.jpg"
        broken.write_bytes(b"")
        message = error_of(DataError, train, None, recipe, out=tmp_path / "stopped", root=root)
        assert message.startswith(f"{broken}: an empty file; ")
        with pytest.warns(BrokenImageWarning, match=rf"^{broken}: an empty file; the image is left out$"):
            train(None, recipe, out=tmp_path / "run", on_broken="skip", root=root)

    def test_data_that_does_not_fit(self, framework, root, recipe, model):
        def message(kind, model, root=root, **changes):
            return error_of(kind, open_source, recipe.replaced(changes), root, model, ReadOptions(framework))

        for split in ("train", "val"):
            shutil.rmtree(root / split / NAMES[3])
        found = message(RecipeError, model)
        assert found.startswith("data imagefolder has 3 classes, but the model has outputs (4,); ")
        found = message(DataError, spec.with_num_classes(model, 3), batch_size=32)
        assert found.startswith("batch_size is 32, and ")
        assert found.endswith("train has 24 images; expected at most 24")
        expected = "data imagefolder needs root (--root DIR), the folder that contains train and val"
        assert message(DataError, model, root=None) == expected
        found = message(RecipeError, spec.preset("cnn", num_classes=3), **{"images.size": 36})
        expected = "data imagefolder has images of 3x36x36 (channels, height, width), but the model takes "
        assert found.startswith(expected)
        assert "(N, 3, 32, 32); override the options of the preset (-o overrides.in_channels=3 -o overrides.im" in found
        shutil.rmtree(root / "val")
        assert "val: no such folder; expected " in message(DataError, model)


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


@pytest.fixture
def files(tmp_path):
    """`PIXELS` in lossless files."""
    paths = [tmp_path / f"{index}.png" for index in range(len(PIXELS))]
    for path, picture in zip(paths, PIXELS, strict=True):
        image.fromarray(picture.transpose(1, 2, 0)).save(path)
    return paths


def small(**options):
    """Return a small network for CIFAR-10."""
    return spec.preset("maam_cifar10", channels=8, **options)


@pytest.fixture
def weights(drawn):
    return drawn(small())


def probabilities(found):
    return np.array([one.probabilities for one in found])


def softmax(logits):
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(1, keepdims=True)


def expected(weights, pixels):
    """Return the probabilities of the float64 reference, for images in [0, 1]."""
    return softmax(ReferenceModel(*read_weights(weights))(pixels.astype(np.float64)))


def evaluated(*arguments, **options):
    """Return the probabilities of an evaluation."""
    return softmax(evaluate_file(*arguments, **options).logits)


class TestPrediction:
    @pytest.mark.parametrize("framework", BACKENDS)
    def test_pixels_are_those_of_training_on_cifar(self, files, weights, framework):
        found = predict_files(weights, files, framework=framework)
        assert [one.path for one in found] == [str(path) for path in files]
        shares = expected(weights, to_float(PIXELS))
        np.testing.assert_allclose(probabilities(found), shares, rtol=1e-4)
        best, second = found[0].top(2)
        assert best == (f"class {shares[0].argmax()}", found[0].probabilities.max())
        assert best[1] >= second[1]

    @pytest.mark.slow_in("mindspore")
    def test_run_determines_pixels_and_names(self, root, recipe, tmp_path, framework):
        """Prediction and evaluation agree on the validation images of the run."""
        keywords = {"framework": framework}
        recipe = recipe.replaced({"epochs": 1, "images.resize": 40, "images.mean": [0.4, 0.5, 0.6]})
        run = train(None, recipe, out=tmp_path / "run", root=root, **keywords)
        shares = evaluated(run.path, "imagefolder", root, **keywords)
        for weights in (run.path, run.best):  # of one epoch: the same
            found = predict_files(weights, root / "val", **keywords)
            np.testing.assert_allclose(probabilities(found), shares, rtol=1e-5)
            assert found[0].class_names == NAMES[:4]
        changes = {"images.mean": [0.5, 0.5, 0.5]}
        other = probabilities(predict_files(run.path, root / "val", changes=changes, **keywords))
        assert np.abs(other - shares).max() > 1e-6
        again = evaluated(run.path, "imagefolder", root, recipe=recipe.replaced(changes), **keywords)
        np.testing.assert_allclose(other, again, rtol=1e-5)
        for split in ("train", "val"):
            (root / split / NAMES[3]).rename(root / split / "zebra")
        message = error_of(DataError, evaluated, run.path, "imagefolder", root, **keywords)
        assert f"val: the model does not have these classes: zebra; its classes are {NAMES[0]}, " in message
        shutil.rmtree(root / "val" / "zebra")
        (root / "val" / NAMES[0]).rename(root / "val" / ".ipynb_checkpoints")
        (root / "val" / NAMES[0]).mkdir()
        fewer = evaluate_file(run.path, **keywords)  # data and root of the run
        assert fewer.notes == (f"2 of 4 classes have no images: {NAMES[0]}, {NAMES[3]}",)
        assert fewer.labels.tolist() == [1] * 4 + [2] * 4
        np.testing.assert_allclose(softmax(fewer.logits), shares[4:12], rtol=1e-5)
        assert fewer.macro()["recall"] == pytest.approx(fewer.accuracy)  # two classes of equal size
        alone = run.final.rename(tmp_path / "alone.safetensors")
        (root / "val" / NAMES[0]).rmdir()
        shutil.rmtree(root / "train")
        message = error_of(RecipeError, evaluate_file, alone, "imagefolder", root, recipe=recipe, **keywords)
        assert message.startswith("data imagefolder has 2 classes, but the model has outputs (4,); ")
        assert "(--classes)" in message
        again = evaluate_file(alone, "imagefolder", root, class_names=NAMES[:4], recipe=recipe, **keywords)
        np.testing.assert_allclose(again.logits, fewer.logits, rtol=1e-5)
        alone.rename(run.final)
        run.run.write_text("{}")
        message = error_of(TrainingError, predict_files, run.path, root / "val", **keywords)
        assert "run.json: expected the description of a run" in message

    def test_a_single_class_is_refused(self, tmp_path, recipe):
        root = write_folder(tmp_path / "images", classes=1)
        message = error_of(DataError, train, None, recipe, out=tmp_path / "run", root=root)
        assert message.startswith(f"{root / 'train'}: only one class folder, 'airplane'; expected at least two; ")

    @pytest.mark.parametrize("changes", [{}, {"images.resize": 40}])
    def test_evaluation_and_prediction_see_the_central_square(self, tmp_path, weights, changes):
        """For a network that was trained on CIFAR, compared with Pillow and the reference."""
        root = write_folder(tmp_path / "images", train=1, val=1)
        shares = evaluated(weights, "imagefolder", root, changes=changes)
        found = predict_files(weights, root / "val", changes=changes)
        np.testing.assert_allclose(probabilities(found), shares, rtol=1e-5)
        pixels = []
        for path in sorted((root / "val").rglob("*.jpg")):
            picture = image.open(path).convert("RGB")
            side, short = changes.get("images.resize", 32), min(picture.size)
            picture = picture.resize([side * length // short for length in picture.size], image.Resampling.BILINEAR)
            left, top = (round((length - 32) / 2) for length in picture.size)
            pixels.append(np.asarray(picture.crop((left, top, left + 32, top + 32))).transpose(2, 0, 1))
        np.testing.assert_allclose(shares, expected(weights, to_float(np.stack(pixels))), rtol=1e-3)

    @pytest.mark.parametrize("framework", BACKENDS)
    def test_gray_values_for_a_model_with_one_channel(self, files, drawn, framework):
        path, shares = drawn(small(in_channels=1)), (0.299, 0.587, 0.114)
        changes = {"images.mean": [0.25, 0.5, 0.75], "images.std": [0.5, 0.5, 0.25]}
        options = {
            "recipe": read_recipe("imagenet_maf"),
            "changes": {**changes, "images.size": 32, "images.resize": 32},
        }
        found = predict_files(path, files, framework=framework, **options)
        mean, std = (np.dot(shares, three) for three in changes.values())
        gray = (np.tensordot(to_float(PIXELS), shares, (1, 0))[:, None] - mean) / std
        np.testing.assert_allclose(probabilities(found), expected(path, gray), rtol=1e-3)

    def test_unfinished_run(self, tmp_path, weights, files):
        folder = tmp_path / "run"
        folder.mkdir()
        assert "contains no run" in error_of(WeightsError, predict_files, folder, files)
        (folder / "run.json").write_text("{}")
        message = f"{folder}: this run is not finished: there is no final.safetensors; resume it (--resume)"
        assert error_of(WeightsError, predict_files, folder, files) == message
        best = weights.rename(folder / "best.safetensors")
        assert error_of(WeightsError, predict_files, folder, files) == f"{message}, or use {best}"

    def test_broken_images(self, files, weights, monkeypatch):
        """The first of three batches has one broken image, and the second one two."""
        monkeypatch.setattr("maam.training.sources.TEST_BATCH", 2)
        for path in files[1:4]:
            path.write_bytes(b"rubbish")
        assert f"{files[1]}: not an image" in error_of(DataError, predict_files, weights, files)
        whole = [files[0], *files[4:]]
        with pytest.warns(BrokenImageWarning, match=r"[123]\.png: not an image"):
            found = predict_files(weights, files, on_broken="skip")
        assert [one.path for one in found] == [str(path) for path in whole]
        np.testing.assert_allclose(probabilities(found), probabilities(predict_files(weights, whole)), rtol=1e-5)
        message = "not an image; no image of the epoch can be read"
        with pytest.warns(BrokenImageWarning), pytest.raises(DataError, match=message):
            predict_files(weights, files[2:4], on_broken="skip")

    def test_wrong_arguments(self, files, weights):
        names, read = "class_names: expected", "image files are read as RGB images of"
        for options, message in [
            ({"class_names": ["cat"]}, f"{names} 10 names, one for each class of the model, got 1"),
            ({"class_names": []}, f"{names} 10 names, one for each class of the model, got 0"),
            ({"class_names": "cat"}, f"{names} a sequence with one name for each class, got 'cat'"),
            ({"files": []}, "files: expected image files"),
            ({"changes": {"epochs": 3}}, "override 'epochs': this has no effect here"),
            ({"changes": {"images.sizes": 3}}, "recipe: images.sizes: no such field; did you mean 'size'?"),
            ({"changes": {"images.size": 64, "images.resize": 64}}, f"{read} 64x64"),
        ]:
            found = error_of(MaamError, predict_files, weights, **{"files": files, **options})
            assert found.removeprefix(f"{weights}: ").startswith(message)

    def test_weights_of_other_networks(self, files, drawn):
        layer = "expected the weights of a classifier, got those of a layer or of a model without logits"
        no_crop = "no recipe determines how images are cropped"
        for node, options, message in [
            (small(in_channels=4), {}, "image files are read as RGB images of 32x32: expected an input (N, 4, 32, 32)"),
            (spec.maam(3), {"recipe": default_recipe("cnn")}, layer),
            (spec.maam(3), {}, layer),
            (spec.preset("mobilenet_v2", cifar=True, width_multiplier=0.25), {}, no_crop),
            (small().replace(name="mine"), {}, no_crop),
            (small().replace(name="mine"), {"changes": {"images.resize": 40}}, no_crop),
        ]:
            path = drawn(node)
            found = error_of(MaamError, predict_files, path, files, **options)
            assert found.removeprefix(f"{path}: ").startswith(message)
        found = predict_files(path, files, recipe=read_recipe("cifar10"), class_names=np.array(NAMES))
        assert {name for one in found for name, _ in one.top(10)} == set(NAMES)

    @pytest.mark.slow_in("mindspore")
    @pytest.mark.parametrize("framework", BACKENDS)
    def test_half_precision(self, framework, files, half_and_wide):
        paths = half_and_wide(small())
        one, other = (predict_files(path, files[:1], framework=framework)[0].probabilities for path in paths)
        np.testing.assert_array_equal(one, other)
        paths = half_and_wide(spec.preset("maam_digits"))
        one, other = (evaluate_file(path, "digits", framework=framework, limit=64).logits for path in paths)
        assert one.dtype == other.dtype == (np.float64 if framework == "reference" else np.float32)
        np.testing.assert_array_equal(one, other)
