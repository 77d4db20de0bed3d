"""Prediction: classification of image files with a weights file or a run."""

import numpy as np
import pytest

from maam import spec
from maam.backend.convert import convert
from maam.data import BrokenImageWarning, to_float
from maam.errors import DataError, MaamError, RecipeError, TrainingError, WeightsError
from maam.reference import ReferenceModel
from maam.spec import draw
from maam.training import default_recipe, evaluate_file, predict_files, read_recipe, train
from maam.weights import read_weights, write_weights
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
def weights(tmp_path):
    """A weights file of a small network for CIFAR-10."""
    node = small()
    write_weights(tmp_path / "small.safetensors", node, draw(node.parameters(), 0))
    return tmp_path / "small.safetensors"


def probabilities(found):
    return np.array([one.probabilities for one in found])


@pytest.mark.parametrize("framework", BACKENDS)
def test_pixels_are_those_of_training_on_cifar(files, pixels, weights, framework):
    pytest.importorskip(framework) if framework != "reference" else None
    found = predict_files(weights, files, framework=framework)
    assert [one.path for one in found] == [str(path) for path in files]
    logits = ReferenceModel(*read_weights(weights))(to_float(pixels).astype(np.float64))
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities(found), expected, rtol=1e-4)
    best, second = found[0].top(2)
    assert best == (f"class {expected[0].argmax()}", found[0].probabilities.max())
    assert best[1] >= second[1]


def test_central_square_of_a_larger_image(files, pixels, weights):
    wide = np.pad(pixels[0], ((0, 0), (0, 0), (7, 7)))  # (3, 32, 46)
    image.fromarray(wide.transpose(1, 2, 0)).save(files[0])
    double = image.fromarray(pixels[1].transpose(1, 2, 0)).resize((64, 64), image.Resampling.NEAREST)
    double.save(files[1])
    found = probabilities(predict_files(weights, files[:2]))
    logits = ReferenceModel(*read_weights(weights))(to_float(pixels[:2]).astype(np.float64))
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)
    np.testing.assert_allclose(found[1], expected[1], atol=0.05)


CHANGES = {
    "overrides": {"num_classes": 4, "channels": [8, 16], "image_size": 32},
    "images.size": 32,
    "images.resize": 40,
    "images.mean": [0.4, 0.5, 0.6],
    "batch_size": 8,
    "epochs": 1,
}


def evaluated(*arguments, **options):
    """Return the probabilities of an evaluation."""
    logits = evaluate_file(*arguments, **options).logits.astype(np.float64)
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


@pytest.mark.parametrize("framework", ["torch", pytest.param("mindspore", marks=pytest.mark.slow)])
def test_run_determines_pixels_and_names(tmp_path, framework):
    """Prediction and evaluation agree on the validation images of the run."""
    pytest.importorskip(framework)
    root = write_folder(tmp_path / "images", classes=4)
    recipe = read_recipe("imagenet_maf").replaced(CHANGES)
    run = train("maam_imagenet", recipe, out=tmp_path / "run", root=root, framework=framework)
    found = predict_files(run.path, root / "val", framework=framework)
    shares = evaluated(run.path, "imagefolder", root, framework=framework)
    np.testing.assert_allclose(probabilities(found), shares, rtol=1e-5)
    assert found[0].class_names == NAMES[:4]
    best = predict_files(run.best, root / "val", framework=framework)  # of one epoch: the same
    np.testing.assert_allclose(probabilities(best), shares, rtol=1e-5)
    assert best[0].class_names == NAMES[:4]
    changes = {"images.mean": [0.5, 0.5, 0.5]}
    other = predict_files(run.path, root / "val", framework=framework, changes=changes)
    assert np.abs(probabilities(other) - shares).max() > 1e-6
    whole = recipe.replaced(changes)
    np.testing.assert_allclose(
        probabilities(other), evaluated(run.path, "imagefolder", root, framework=framework, recipe=whole), rtol=1e-5
    )
    for split in ("train", "val"):
        (root / split / NAMES[3]).rename(root / split / "zebra")
    with pytest.raises(
        DataError, match=f"the run and of the folder differ: {NAMES[3]} in the run, zebra in the folder"
    ):
        evaluated(run.path, "imagefolder", root, framework=framework)
    run.run.write_text("{}")
    with pytest.raises(TrainingError, match=r"run.json: not the description of a run"):
        predict_files(run.path, root / "val", framework=framework)


@pytest.mark.parametrize("changes", [{}, {"images.resize": 40}])
def test_evaluation_and_prediction_see_the_same_pixels(tmp_path, changes):
    """For a network that was trained on CIFAR."""
    root = write_folder(tmp_path / "images", classes=10, train=1, val=1)
    node = small()
    write_weights(tmp_path / "small.safetensors", node, draw(node.parameters(), 0))
    found = predict_files(tmp_path / "small.safetensors", root / "val", changes=changes)
    shares = evaluated(tmp_path / "small.safetensors", "imagefolder", root, changes=changes)
    np.testing.assert_allclose(probabilities(found), shares, rtol=1e-5)
    images = [image.open(path).convert("RGB") for path in sorted((root / "val").rglob("*.jpg"))]
    logits = []
    for picture in images:
        side, short = changes.get("images.resize", 32), min(picture.size)
        picture = picture.resize([side * length // short for length in picture.size], image.Resampling.BILINEAR)
        left, top = (round((length - 32) / 2) for length in picture.size)
        pixels = to_float(np.asarray(picture.crop((left, top, left + 32, top + 32))).transpose(2, 0, 1)[None])
        logits.append(ReferenceModel(*read_weights(tmp_path / "small.safetensors"))(pixels.astype(np.float64)))
    expected = np.exp(np.concatenate(logits))
    np.testing.assert_allclose(shares, expected / expected.sum(1, keepdims=True), rtol=1e-3)


def test_unfinished_run(tmp_path, weights, files):
    for name, message in (
        ("run", "this run is not finished: there is no final.safetensors"),
        ("other", "contains no run"),
    ):
        (tmp_path / name).mkdir()
        if name == "run":
            (tmp_path / "run" / "run.json").write_text("{}")
        with pytest.raises(WeightsError, match=message):
            predict_files(tmp_path / name, files)
    weights.rename(tmp_path / "run" / "best.safetensors")
    with pytest.raises(WeightsError, match=r"resume it \(--resume\), or use .*best.safetensors"):
        predict_files(tmp_path / "run", files)


def test_broken_images(files, weights):
    files[1].write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"1\.png: not an image"):
        predict_files(weights, files)
    whole = [path for path in files if path != files[1]]
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
    with (
        pytest.warns(BrokenImageWarning),
        pytest.raises(DataError, match="not an image; no image of the epoch can be read"),
    ):
        predict_files(weights, files[2:4], on_broken="skip")


def small(**options):
    return spec.preset("maam_cifar10", channels=8, **options)


LAYER = "these weights belong to a layer, or to a model without logits; expected a classifier"


@pytest.mark.parametrize(
    ("node", "options", "message"),
    [
        (small(), {"class_names": ["cat"]}, "class_names: expected 10 names, one for each class of the model, got 1"),
        (small(), {"class_names": []}, "class_names: expected 10 names, one for each class of the model, got 0"),
        (small(), {"class_names": "cat"}, "class_names: expected a sequence with one name for each class, got 'cat'"),
        (small(), {"files": []}, "no image files: name some"),
        (small(), {"files": "no.png"}, "no.png: no such file"),
        (small(), {"changes": {"epochs": 3}}, "override 'epochs': this has no effect here"),
        (small(), {"changes": {"images.sizes": 3}}, "recipe: images.sizes: no such field; did you mean 'size'?"),
        (small(), {"changes": {"images.size": 64, "images.resize": 64}}, "image files are read as RGB images of 64x64"),
        (spec.preset("maam_digits"), {}, "image files are read as RGB images of 8x8: expected an input (N, 1, 8, 8)"),
        (spec.maam(3), {"recipe": default_recipe("cnn")}, LAYER),
        (spec.maam(3), {}, LAYER),
        (
            spec.preset("mobilenet_v2", cifar=True, width_multiplier=0.25),
            {},
            "no recipe determines how images are cropped",
        ),
    ],
)
def test_wrong_arguments(files, tmp_path, node, options, message):
    path = tmp_path / "one.safetensors"
    write_weights(path, node, draw(node.parameters(), 0))
    with pytest.raises(MaamError) as caught:
        predict_files(path, options.pop("files", files), **options)
    assert str(caught.value).removeprefix(f"{path}: ").startswith(message)


def test_names_without_a_recipe(files, tmp_path):
    node = small().replace(name="mine")
    write_weights(tmp_path / "mine.safetensors", node, draw(node.parameters(), 0))
    with pytest.raises(RecipeError, match="no recipe determines how"):
        predict_files(tmp_path / "mine.safetensors", files)
    with pytest.raises(RecipeError, match="no recipe determines how"):
        predict_files(tmp_path / "mine.safetensors", files, changes={"images.resize": 40})
    names = np.array(NAMES)
    found = predict_files(tmp_path / "mine.safetensors", files, recipe=read_recipe("cifar10"), class_names=names)
    assert {name for one in found for name, _ in one.top(10)} == set(NAMES)


HALF = [
    (framework, dtype)
    if framework != "mindspore" or dtype == "bfloat16"
    else pytest.param(framework, dtype, marks=pytest.mark.slow)
    for framework in BACKENDS
    for dtype in ("float16", "bfloat16")
]


def half_and_wide(node, dtype, folder):
    """Write a weights file of half precision, and a float32 file with the same numbers."""
    write_weights(folder / "drawn.safetensors", node, draw(node.parameters(), 0))
    convert(folder / "drawn.safetensors", folder / "half.safetensors", dtype=dtype)
    convert(folder / "half.safetensors", folder / "wide.safetensors", dtype="float32")
    return folder / "half.safetensors", folder / "wide.safetensors"


@pytest.mark.parametrize(("framework", "dtype"), HALF)
def test_evaluation_of_half_precision(framework, dtype, tmp_path):
    pytest.importorskip(framework) if framework != "reference" else None
    files = half_and_wide(spec.preset("maam_digits"), dtype, tmp_path)
    half, wide = (evaluate_file(file, "digits", framework=framework, limit=64).logits for file in files)
    assert half.dtype == wide.dtype == (np.float64 if framework == "reference" else np.float32)
    np.testing.assert_array_equal(half, wide)


@pytest.mark.parametrize(("framework", "dtype"), HALF)
def test_prediction_with_half_precision(framework, dtype, tmp_path):
    pytest.importorskip(framework) if framework != "reference" else None
    with np.load(SAMPLE) as content:
        image.fromarray(content["images"][0].transpose(1, 2, 0)).save(tmp_path / "one.png")
    files = half_and_wide(spec.preset("maam_cifar10", channels=8), dtype, tmp_path)
    (half,), (wide,) = (predict_files(file, [tmp_path / "one.png"], framework=framework) for file in files)
    np.testing.assert_array_equal(half.probabilities, wide.probabilities)
