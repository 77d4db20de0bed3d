"""The trained weights in the repository: spec, predictions in every backend, accuracy, model card."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from maam import reference
from maam.data import to_float
from maam.spec import Model, preset
from maam.weights import read_weights

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "weights").glob("*.safetensors"))
IN_NUMPY = 48
LEAST = 0.8
"""The smallest accuracy on the 320 images; a missing array or another scale of the pixels gives much less."""

named = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def sample():
    """Return pixels in [0, 1] and labels of test images."""
    with np.load(ROOT / "tests" / "data" / "cifar10_sample.npz") as content:
        return to_float(content["images"]), content["labels"]


def predictions(framework, path, images):
    backend = import_module(f"maam.{framework}")
    model = backend.load(path, dtype=import_module(framework).float32)  # the file can be in half precision
    runner = import_module(f"maam.{framework}.runner").Runner(model)
    return runner.forward(images).argmax(1)


def test_there_are_weights():
    assert "maam_cifar10_2m3" in [path.stem for path in FILES]


@named
def test_the_spec_is_that_of_the_preset(path):
    spec, arrays = read_weights(path)
    assert isinstance(spec, Model)
    assert spec == preset(path.stem)
    assert {p.name for p in spec.parameters()} == set(arrays)


@named
@pytest.mark.parametrize("framework", ["torch", "mindspore"])
def test_accuracy_and_predictions_of_the_reference(path, framework, sample):
    pytest.importorskip(framework)
    images, labels = sample
    found = predictions(framework, path, images)
    assert (found == labels).mean() > LEAST
    expected = reference.load(path)(images[:IN_NUMPY].astype(np.float64)).argmax(1)
    np.testing.assert_array_equal(found[:IN_NUMPY], expected)


@named
def test_the_model_card_names_the_file(path):
    card = (path.parent / "README.md").read_text()
    assert path.name in card
    assert "maam evaluate" in card
