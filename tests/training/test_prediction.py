"""Prediction: classification of image files with a weights file or a run."""

import shutil

import numpy as np
import pytest

from maam import spec
from maam.data import BrokenImageWarning, to_float
from maam.errors import DataError, MaamError, RecipeError, TrainingError, WeightsError
from maam.reference import ReferenceModel
from maam.training import default_recipe, evaluate_file, predict_files, read_recipe, train
from maam.weights import read_weights
from tests.errors import error_of
from tests.image_folders import NAMES, SAMPLE, write_folder

image = pytest.importorskip("PIL.Image")
BACKENDS = ("torch", "mindspore", "reference")


PIXELS = np.load(SAMPLE)["images"][:6]
"""Real test images, uint8 (6, 3, 32, 32)."""


@pytest.fixture
def files(tmp_path):
    """The same images in lossless files."""
    paths = [tmp_path / f"{index}.png" for index in range(len(PIXELS))]
    for path, picture in zip(paths, PIXELS, strict=True):
        image.fromarray(picture.transpose(1, 2, 0)).save(path)
    return paths


@pytest.fixture
def weights(drawn):
    """A weights file of a small network for CIFAR-10."""
    return drawn(small())


def small(**options):
    return spec.preset("maam_cifar10", channels=8, **options)


def probabilities(found):
    return np.array([one.probabilities for one in found])


def softmax(logits):
    powers = np.exp(logits)
    return powers / powers.sum(1, keepdims=True)


def expected(weights, pixels):
    """Return the probabilities of the float64 reference, for uint8 images."""
    return softmax(ReferenceModel(*read_weights(weights))(to_float(pixels).astype(np.float64)))


def evaluated(*arguments, **options):
    """Return the probabilities of an evaluation."""
    return softmax(evaluate_file(*arguments, **options).logits.astype(np.float64))


@pytest.mark.parametrize("framework", BACKENDS)
def test_pixels_are_those_of_training_on_cifar(files, weights, framework):
    found = predict_files(weights, files, framework=framework)
    assert [one.path for one in found] == [str(path) for path in files]
    shares = expected(weights, PIXELS)
    np.testing.assert_allclose(probabilities(found), shares, rtol=1e-4)
    best, second = found[0].top(2)
    assert best == (f"class {shares[0].argmax()}", found[0].probabilities.max())
    assert best[1] >= second[1]


CHANGES = {"overrides": {"num_classes": 4, "channels": [8, 16], "image_size": 32}, "batch_size": 8, "epochs": 1}
CHANGES |= {"images.size": 32, "images.resize": 40, "images.mean": [0.4, 0.5, 0.6]}


@pytest.mark.slow_in("mindspore")
def test_run_determines_pixels_and_names(tmp_path, framework):
    """Prediction and evaluation agree on the validation images of the run."""
    root, keywords = write_folder(tmp_path / "images", classes=4), {"framework": framework}
    recipe = read_recipe("imagenet_maf").replaced(CHANGES)
    run = train("maam_imagenet", recipe, out=tmp_path / "run", root=root, **keywords)
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
    np.testing.assert_allclose(softmax(fewer.logits.astype(np.float64)), shares[4:12], rtol=1e-5)
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


@pytest.mark.parametrize("changes", [{}, {"images.resize": 40}])
def test_evaluation_and_prediction_see_the_central_square(tmp_path, weights, changes):
    """For a network that was trained on CIFAR, compared with Pillow and the reference."""
    root = write_folder(tmp_path / "images", train=1, val=1)
    shares = evaluated(weights, "imagefolder", root, changes=changes)
    np.testing.assert_allclose(probabilities(predict_files(weights, root / "val", changes=changes)), shares, rtol=1e-5)
    pixels = []
    for path in sorted((root / "val").rglob("*.jpg")):
        picture = image.open(path).convert("RGB")
        side, short = changes.get("images.resize", 32), min(picture.size)
        picture = picture.resize([side * length // short for length in picture.size], image.Resampling.BILINEAR)
        left, top = (round((length - 32) / 2) for length in picture.size)
        pixels.append(np.asarray(picture.crop((left, top, left + 32, top + 32))).transpose(2, 0, 1))
    np.testing.assert_allclose(shares, expected(weights, np.stack(pixels)), rtol=1e-3)


@pytest.mark.parametrize("framework", BACKENDS)
def test_gray_values_for_a_model_with_one_channel(files, drawn, framework):
    path = drawn(small(in_channels=1))
    changes = {"images.mean": [0.25, 0.5, 0.75], "images.std": [0.5, 0.5, 0.25]}
    options = {"recipe": read_recipe("imagenet_maf"), "changes": {**changes, "images.size": 32, "images.resize": 32}}
    found = predict_files(path, files, framework=framework, **options)
    shares = (0.299, 0.587, 0.114)
    mean, std = np.dot(shares, changes["images.mean"]), np.dot(shares, changes["images.std"])
    gray = (np.tensordot(to_float(PIXELS), shares, (1, 0))[:, None] - mean) / std
    reference = softmax(ReferenceModel(*read_weights(path))(gray.astype(np.float64)))
    np.testing.assert_allclose(probabilities(found), reference, rtol=1e-3)


def test_unfinished_run(tmp_path, weights, files):
    folder = tmp_path / "run"
    folder.mkdir()
    assert "contains no run" in error_of(WeightsError, predict_files, folder, files)
    (folder / "run.json").write_text("{}")
    message = f"{folder}: this run is not finished: there is no final.safetensors; resume it (--resume)"
    assert error_of(WeightsError, predict_files, folder, files) == message
    best = weights.rename(folder / "best.safetensors")
    assert error_of(WeightsError, predict_files, folder, files) == f"{message}, or use {best}"


def test_broken_images(files, weights, monkeypatch):
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


NO_CROP = "no recipe determines how images are cropped"
LAYER = "expected the weights of a classifier, got those of a layer or of a model without logits"


@pytest.mark.parametrize(
    ("node", "options", "message"),
    [
        (small(), {"class_names": ["cat"]}, "class_names: expected 10 names, one for each class of the model, got 1"),
        (small(), {"class_names": []}, "class_names: expected 10 names, one for each class of the model, got 0"),
        (small(), {"class_names": "cat"}, "class_names: expected a sequence with one name for each class, got 'cat'"),
        (small(), {"files": []}, "files: expected image files"),
        (small(), {"files": "no.png"}, "no.png: no such file"),
        (small(), {"changes": {"epochs": 3}}, "override 'epochs': this has no effect here"),
        (small(), {"changes": {"images.sizes": 3}}, "recipe: images.sizes: no such field; did you mean 'size'?"),
        (small(), {"changes": {"images.size": 64, "images.resize": 64}}, "image files are read as RGB images of 64x64"),
        (small(in_channels=4), {}, "image files are read as RGB images of 32x32: expected an input (N, 4, 32, 32)"),
        (spec.maam(3), {"recipe": default_recipe("cnn")}, LAYER),
        (spec.maam(3), {}, LAYER),
        (spec.preset("mobilenet_v2", cifar=True, width_multiplier=0.25), {}, NO_CROP),
    ],
)
def test_wrong_arguments(files, drawn, node, options, message):
    path = drawn(node)
    found = error_of(MaamError, predict_files, path, **{"files": files, **options})
    assert found.removeprefix(f"{path}: ").startswith(message)


def test_names_without_a_recipe(files, drawn):
    path = drawn(small().replace(name="mine"))
    for options in ({}, {"changes": {"images.resize": 40}}):
        assert NO_CROP in error_of(RecipeError, predict_files, path, files, **options)
    found = predict_files(path, files, recipe=read_recipe("cifar10"), class_names=np.array(NAMES))
    assert {name for one in found for name, _ in one.top(10)} == set(NAMES)


@pytest.mark.slow_in("mindspore")
@pytest.mark.parametrize("framework", BACKENDS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(framework, dtype, files, half_and_wide):
    paths = half_and_wide(small(), dtype)
    one, other = (predict_files(path, files[:1], framework=framework)[0].probabilities for path in paths)
    np.testing.assert_array_equal(one, other)
    paths = half_and_wide(spec.preset("maam_digits"), dtype)
    one, other = (evaluate_file(path, "digits", framework=framework, limit=64).logits for path in paths)
    assert one.dtype == other.dtype == (np.float64 if framework == "reference" else np.float32)
    np.testing.assert_array_equal(one, other)
