"""Image files, classified by a weights file or a run."""

import numpy as np
import pytest

from maam import spec
from maam.data import BrokenImageWarning, to_float
from maam.errors import DataError, MaamError, RecipeError
from maam.reference import Referee
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
    node = spec.preset("maam_cifar10", channels=8)
    write_weights(tmp_path / "small.safetensors", node, draw(node.parameters(), 0))
    return tmp_path / "small.safetensors"


def probabilities(found):
    return np.array([one.probabilities for one in found])


@pytest.mark.parametrize("framework", ROOMS)
def test_pixels_as_in_training_on_cifar(files, pixels, weights, framework):
    pytest.importorskip(framework) if framework != "reference" else None
    found = predict_files(weights, files, framework=framework)
    assert [one.path for one in found] == [str(path) for path in files]
    logits = Referee(*read_weights(weights))(to_float(pixels).astype(np.float64))
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
    logits = Referee(*read_weights(weights))(to_float(pixels[:2]).astype(np.float64))
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)
    np.testing.assert_allclose(found[1], expected[1], atol=0.05)


def test_a_run_says_how_and_what(tmp_path, framework):
    """As `evaluate_file` finds them in the run's validation images."""
    root = write_folder(tmp_path / "images", classes=4)
    changes = {
        "overrides": {"num_classes": 4, "channels": [8, 16], "image_size": 32},
        "images.size": 32,
        "images.resize": 40,
        "images.mean": [0.4, 0.5, 0.6],
        "batch_size": 8,
        "epochs": 1,
    }
    recipe = read_recipe("imagenet_maf").replaced(changes)
    run = train("maam_imagenet", recipe, out=tmp_path / "run", root=root, framework=framework)
    found = predict_files(run.path, root / "val", framework=framework)
    expected = evaluate_file(run.path, "imagefolder", root, framework=framework).logits.astype(np.float64)
    shares = np.exp(expected) / np.exp(expected).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities(found), shares, rtol=1e-5)
    assert found[0].class_names == NAMES[:4]
    other = predict_files(run.path, root / "val", framework=framework, recipe=read_recipe("imagenet_maf"))
    assert np.abs(probabilities(other) - shares).max() > 1e-4


def test_broken_images(files, weights):
    files[1].write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"1\.png: not an image"):
        predict_files(weights, files)
    whole = [path for path in files if path != files[1]]
    with pytest.warns(BrokenImageWarning, match=r"1\.png"):
        found = predict_files(weights, files, on_broken="skip")
    assert [one.path for one in found] == [str(path) for path in whole]
    np.testing.assert_allclose(probabilities(found), probabilities(predict_files(weights, whole)), rtol=1e-5)


@pytest.mark.parametrize(
    ("node", "options", "message"),
    [
        (
            spec.preset("maam_cifar10", channels=8),
            {"class_names": ["cat"]},
            "1 class names, but the model has 10 classes",
        ),
        (spec.preset("maam_cifar10", channels=8), {"files": []}, "no image files: name some"),
        (spec.preset("maam_cifar10", channels=8), {"files": "no.png"}, "no.png: no such file"),
        (spec.preset("maam_digits"), {}, "image files are read as RGB images of 8x8: expected an input (N, 1, 8, 8)"),
        (spec.maam(3), {"recipe": default_recipe("cnn")}, "image files are read as RGB|these weights are those of a"),
        (spec.maam(3), {}, "nothing says how images are to be cut"),
    ],
)
def test_what_does_not_fit(files, tmp_path, node, options, message):
    write_weights(tmp_path / "one.safetensors", node, draw(node.parameters(), 0))
    with pytest.raises(MaamError) as caught:
        predict_files(tmp_path / "one.safetensors", options.pop("files", files), **options)
    assert any(str(caught.value).startswith(part) for part in message.split("|"))


def test_names_without_a_recipe(files, tmp_path):
    node = spec.preset("maam_cifar10", channels=8).replace(name="mine")
    write_weights(tmp_path / "mine.safetensors", node, draw(node.parameters(), 0))
    with pytest.raises(RecipeError, match="nothing says how"):
        predict_files(tmp_path / "mine.safetensors", files)
    found = predict_files(tmp_path / "mine.safetensors", files, recipe=read_recipe("cifar10"), class_names=NAMES)
    assert {name for one in found for name, _ in one.top(10)} == set(NAMES)
