"""Image files, classified by a weights file or a run."""

import numpy as np
import pytest

from maam import spec
from maam.data import BrokenImageWarning, to_float
from maam.errors import DataError, MaamError, RecipeError, TrainingError, WeightsError
from maam.reference import ReferenceModel
from maam.spec import draw
from maam.training import default_recipe, evaluate_file, predict_files, read_recipe, train
from maam.weights import read_weights, write_weights
from tests.image_folders import NAMES, SAMPLE, write_folder

image = pytest.importorskip("PIL.Image")
ROOMS = ("torch", "mindspore", "reference")


@pytest.fixture
def pixels():
    """Real test images, uint8 (6, 3, 32, 32)."""
    with np.load(SAMPLE) as content:
        return content["images"][:6]


@pytest.fixture
def files(pixels, tmp_path):
    """The same as files that lose nothing."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, picture in enumerate(pixels):
        image.fromarray(picture.transpose(1, 2, 0)).save(folder / f"{index}.png")
    return sorted(folder.iterdir())


@pytest.fixture
def weights(tmp_path):
    """A small network for CIFAR-10, freshly drawn."""
    node = small()
    write_weights(tmp_path / "small.safetensors", node, draw(node.parameters(), 0))
    return tmp_path / "small.safetensors"


def probabilities(found):
    return np.array([one.probabilities for one in found])


@pytest.mark.parametrize("framework", ROOMS)
def test_pixels_as_in_training_on_cifar(files, pixels, weights, framework):
    pytest.importorskip(framework) if framework != "reference" else None
    found = predict_files(weights, files, framework=framework)
    assert [one.path for one in found] == [str(path) for path in files]
    logits = ReferenceModel(*read_weights(weights))(to_float(pixels).astype(np.float64))
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities(found), expected, rtol=1e-4)
    best, second = found[0].top(2)
    assert best == (f"class {expected[0].argmax()}", found[0].probabilities.max())
    assert best[1] >= second[1]


def test_a_larger_image_is_its_central_square(files, pixels, weights):
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
    """The probabilities of an evaluation."""
    logits = evaluate_file(*arguments, **options).logits.astype(np.float64)
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_a_run_says_how_and_what(tmp_path, framework):
    """As `evaluate_file` finds them in the run's validation images."""
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
    with pytest.raises(DataError, match=f"other classes than the folder has .{NAMES[3]} there, zebra here."):
        evaluated(run.path, "imagefolder", root, framework=framework)
    run.run.write_text("{}")
    with pytest.raises(TrainingError, match=r"run.json: not the description of a run"):
        predict_files(run.path, root / "val", framework=framework)


@pytest.mark.parametrize("changes", [{}, {"images.resize": 40}])
def test_evaluation_and_prediction_see_the_same_pixels(tmp_path, changes):
    """Those of CIFAR, for a network that was trained on it."""
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


def test_a_run_that_has_not_ended(tmp_path, weights, files):
    for name, message in (("run", "this run has not ended: there is no final.safetensors"), ("other", "holds no run")):
        (tmp_path / name).mkdir()
        if name == "run":
            (tmp_path / "run" / "run.json").write_text("{}")
        with pytest.raises(WeightsError, match=message):
            predict_files(tmp_path / name, files)
    weights.rename(tmp_path / "run" / "best.safetensors")
    with pytest.raises(WeightsError, match=r"go on with it, or name .*best.safetensors"):
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


def test_a_whole_batch_of_broken_images(files, weights, monkeypatch):
    monkeypatch.setattr("maam.training.sources.TEST_BATCH", 2)
    for path in files[2:4]:
        path.write_bytes(b"rubbish")
    with pytest.warns(BrokenImageWarning):
        found = predict_files(weights, files, on_broken="skip")
    assert [one.path for one in found] == [str(path) for path in (*files[:2], *files[4:])]
    with pytest.warns(BrokenImageWarning), pytest.raises(DataError, match="not an image; none of the images can be"):
        predict_files(weights, files[2:4], on_broken="skip")


def small(**options):
    return spec.preset("maam_cifar10", channels=8, **options)


LAYER = "the weights of a layer, or of a model without logits; give a classifier's"


@pytest.mark.parametrize(
    ("node", "options", "message"),
    [
        (small(), {"class_names": ["cat"]}, "1 class names, but the model has 10 classes"),
        (small(), {"class_names": []}, "0 class names, but the model has 10 classes"),
        (small(), {"class_names": "cat"}, "class_names: expected a sequence of names, one for each class, got 'cat'"),
        (small(), {"files": []}, "no image files: name some"),
        (small(), {"files": "no.png"}, "no.png: no such file"),
        (small(), {"changes": {"epochs": 3}}, "override 'epochs': it does not act here"),
        (small(), {"changes": {"images.sizes": 3}}, "recipe: images.sizes: no such field; did you mean 'size'?"),
        (small(), {"changes": {"images.size": 64, "images.resize": 64}}, "image files are read as RGB images of 64x64"),
        (spec.preset("maam_digits"), {}, "image files are read as RGB images of 8x8: expected an input (N, 1, 8, 8)"),
        (spec.maam(3), {"recipe": default_recipe("cnn")}, LAYER),
        (spec.maam(3), {}, LAYER),
        (spec.preset("mobilenet_v2", cifar=True, width_multiplier=0.25), {}, "nothing says how images are cut"),
    ],
)
def test_what_does_not_fit(files, tmp_path, node, options, message):
    path = tmp_path / "one.safetensors"
    write_weights(path, node, draw(node.parameters(), 0))
    with pytest.raises(MaamError) as caught:
        predict_files(path, options.pop("files", files), **options)
    assert str(caught.value).removeprefix(f"{path}: ").startswith(message)


def test_names_without_a_recipe(files, tmp_path):
    node = small().replace(name="mine")
    write_weights(tmp_path / "mine.safetensors", node, draw(node.parameters(), 0))
    with pytest.raises(RecipeError, match="nothing says how"):
        predict_files(tmp_path / "mine.safetensors", files)
    with pytest.raises(RecipeError, match="nothing says how"):
        predict_files(tmp_path / "mine.safetensors", files, changes={"images.resize": 40})
    names = np.array(NAMES)
    found = predict_files(tmp_path / "mine.safetensors", files, recipe=read_recipe("cifar10"), class_names=names)
    assert {name for one in found for name, _ in one.top(10)} == set(NAMES)
