"""The trained weights in the repository: spec, predictions in every backend, accuracy, model card."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from maam import reference
from maam.data import to_float
from maam.spec import Model, preset
from maam.weights import read_weights
from tests.image_folders import SAMPLE

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "weights").glob("*.safetensors"))
USED, IN_NUMPY = 160, 16
LEAST = 0.8
"""The smallest accuracy on these images; a missing array or another scale of the pixels gives much less."""


def test_specs_are_those_of_the_presets_and_the_card_names_the_files():
    card = (ROOT / "weights" / "README.md").read_text()
    assert "maam evaluate" in card
    assert "maam_cifar10_2m3" in [path.stem for path in FILES]
    for path in FILES:
        spec, arrays = read_weights(path)
        assert isinstance(spec, Model)
        assert spec == preset(path.stem)
        assert {p.name for p in spec.parameters()} == set(arrays)
        assert path.name in card


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("framework", ["torch", "mindspore"])
def test_accuracy_and_predictions_of_the_reference(path, framework):
    native = pytest.importorskip(framework)
    with np.load(SAMPLE) as content:
        images, labels = to_float(content["images"][:USED]), content["labels"][:USED]
    model = import_module(f"maam.{framework}").load(path, dtype=native.float32)  # the file can be in half precision
    found = import_module(f"maam.{framework}.runner").Runner(model).forward(images).argmax(1)
    assert (found == labels).mean() > LEAST
    expected = reference.load(path)(images[:IN_NUMPY].astype(np.float64)).argmax(1)
    np.testing.assert_array_equal(found[:IN_NUMPY], expected)
