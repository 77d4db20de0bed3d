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


@pytest.fixture
def pixels():
    """Real test images, uint8 (6, 3, 32, 32)."""
    with np.load(SAMPLE) as content:
        return content["images"][:6]


@pytest.fixture
def files(pixels, tmp_path):
    """The same images in lossless files."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, picture in enumerate(pixels):
        image.fromarray(picture.transpose(1, 2, 0)).save(folder / f"{index}.png")
    return sorted(folder.iterdir())


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
def test_pixels_are_those_of_training_on_cifar(files, pixels, weights, framework):
    found = predict_files(weights, files, framework=framework)
    assert [one.path for one in found] == [str(path) for path in files]
    shares = expected(weights, pixels)
    np.testing.assert_allclose(probabilities(found), shares, rtol=1e-4)
    best, second = found[0].top(2)
    assert best == (f"class {shares[0].argmax()}", found[0].probabilities.max())
    assert best[1] >= second[1]


def test_central_square_of_a_larger_image(files, pixels, weights):
    wide = np.pad(pixels[0], ((0, 0), (0, 0), (7, 7)))  # (3, 32, 46)
    image.fromarray(wide.transpose(1, 2, 0)).save(files[0])
    double = image.fromarray(pixels[1].transpose(1, 2, 0)).resize((64, 64), image.Resampling.NEAREST)
    double.save(files[1])
    found, shares = probabilities(predict_files(weights, files[:2])), expected(weights, pixels[:2])
    np.testing.assert_allclose(found[0], shares[0], rtol=1e-4)
    np.testing.assert_allclose(found[1], shares[1], atol=0.05)


CHANGES = {
    "overrides": {"num_classes": 4, "channels": [8, 16], "image_size": 32},
    "images.size": 32,
    "images.resize": 40,
    "images.mean": [0.4, 0.5, 0.6],
    "batch_size": 8,
    "epochs": 1,
}


@pytest.mark.parametrize("framework", ["torch", pytest.param("mindspore", marks=pytest.mark.slow)])
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
    message = rf"val: the model does not have these classes: zebra; its classes are {NAMES[0]}, .*; rename the folders"
    with pytest.raises(DataError, match=message):
        evaluated(run.path, "imagefolder", root, **keywords)
    shutil.rmtree(root / "val" / "zebra")
    (root / "val" / NAMES[0]).rename(root / "val" / ".ipynb_checkpoints")
    (root / "val" / NAMES[0]).mkdir()
    fewer = evaluate_file(run.path, **keywords)  # data and root of the run
    assert fewer.notes == (f"2 of 4 classes have no images: {NAMES[0]}, {NAMES[3]}",)
    assert fewer.labels.tolist() == [1] * 4 + [2] * 4
    np.testing.assert_allclose(softmax(fewer.logits.astype(np.float64)), shares[4:12], rtol=1e-5)
    assert fewer.macro()["recall"] == pytest.approx(fewer.accuracy)  # two classes of equal size
    run.final.rename(tmp_path / "alone.safetensors")
    options = {"recipe": recipe, "limit": None, **keywords}
    message = r"data imagefolder has 2 classes, but the model has outputs \(4,\); .* \(--classes\)"
    (root / "val" / NAMES[0]).rmdir()
    shutil.rmtree(root / "train")
    with pytest.raises(RecipeError, match=message):
        evaluate_file(tmp_path / "alone.safetensors", "imagefolder", root, **options)
    again = evaluate_file(tmp_path / "alone.safetensors", "imagefolder", root, class_names=NAMES[:4], **options)
    np.testing.assert_allclose(again.logits, fewer.logits, rtol=1e-5)
    (tmp_path / "alone.safetensors").rename(run.final)
    run.run.write_text("{}")
    with pytest.raises(TrainingError, match=r"run.json: expected the description of a run"):
        predict_files(run.path, root / "val", **keywords)


@pytest.mark.parametrize("changes", [{}, {"images.resize": 40}])
def test_evaluation_and_prediction_see_the_same_pixels(tmp_path, weights, changes):
    """For a network that was trained on CIFAR."""
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
def test_grey_values_for_a_model_with_one_channel(files, pixels, drawn, framework):
    path = drawn(small(in_channels=1))
    changes = {"images.mean": [0.25, 0.5, 0.75], "images.std": [0.5, 0.5, 0.25]}
    options = {"recipe": read_recipe("imagenet_maf"), "changes": {**changes, "images.size": 32, "images.resize": 32}}
    found = predict_files(path, files, framework=framework, **options)
    shares = (0.299, 0.587, 0.114)
    mean, std = np.dot(shares, changes["images.mean"]), np.dot(shares, changes["images.std"])
    grey = (np.tensordot(to_float(pixels), shares, (1, 0))[:, None] - mean) / std
    reference = softmax(ReferenceModel(*read_weights(path))(grey.astype(np.float64)))
    np.testing.assert_allclose(probabilities(found), reference, rtol=1e-3)


def test_unfinished_run(tmp_path, weights, files):
    folder = tmp_path / "run"
    folder.mkdir()
    with pytest.raises(WeightsError, match="contains no run"):
        predict_files(folder, files)
    (folder / "run.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"this run is not finished: there is no final\.safetensors"):
        predict_files(folder, files)
    weights.rename(folder / "best.safetensors")
    with pytest.raises(WeightsError, match=r"resume it \(--resume\), or use .*best.safetensors"):
        predict_files(folder, files)


def test_broken_images(files, weights):
    files[1].write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"1\.png: not an image"):
        predict_files(weights, files)
    whole = [files[0], *files[2:]]
    with pytest.warns(BrokenImageWarning, match=r"1\.png"):
        found = predict_files(weights, files, on_broken="skip")
    assert [one.path for one in found] == [str(path) for path in whole]
    np.testing.assert_allclose(probabilities(found), probabilities(predict_files(weights, whole)), rtol=1e-5)


def test_batch_of_broken_images(files, weights, monkeypatch):
    monkeypatch.setattr("maam.training.sources.TEST_BATCH", 2)
    for path in files[2:4]:
        path.write_bytes(b"rubbish")
    with pytest.warns(BrokenImageWarning):
        found = predict_files(weights, files, on_broken="skip")
    assert [one.path for one in found] == [str(path) for path in (*files[:2], *files[4:])]
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
        with pytest.raises(RecipeError, match="no recipe determines how"):
            predict_files(path, files, **options)
    found = predict_files(path, files, recipe=read_recipe("cifar10"), class_names=np.array(NAMES))
    assert {name for one in found for name, _ in one.top(10)} == set(NAMES)


HALF = [(name, dtype) for name in ("torch", "reference") for dtype in ("float16", "bfloat16")]
HALF += [pytest.param("mindspore", dtype, marks=pytest.mark.slow) for dtype in ("float16", "bfloat16")]


@pytest.mark.parametrize(("framework", "dtype"), HALF)
def test_half_precision(framework, dtype, files, half_and_wide):
    half, wide = half_and_wide(small(), dtype)
    one, other = (predict_files(path, files[:1], framework=framework)[0].probabilities for path in (half, wide))
    np.testing.assert_array_equal(one, other)
    half, wide = half_and_wide(spec.preset("maam_digits"), dtype)
    one, other = (evaluate_file(path, "digits", framework=framework, limit=64).logits for path in (half, wide))
    assert one.dtype == other.dtype == (np.float64 if framework == "reference" else np.float32)
    np.testing.assert_array_equal(one, other)
