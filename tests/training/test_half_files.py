"""Weights files of half precision: whatever reads them computes in float32, as from the same numbers in float32."""

import numpy as np
import pytest

from maam import spec
from maam.backend.convert import convert
from maam.spec import draw
from maam.training import evaluate_file, predict_files, train
from maam.weights import write_weights
from tests.image_folders import SAMPLE

ROOMS = ("torch", "mindspore", "reference")


@pytest.fixture(params=["float16", "bfloat16"])
def dtype(request):
    """Each of the two."""
    return request.param


def pair(node, dtype, folder):
    """A file of half precision, and one with the same numbers in float32."""
    write_weights(folder / "drawn.safetensors", node, draw(node.parameters(), 0))
    convert(folder / "drawn.safetensors", folder / "half.safetensors", dtype=dtype)
    convert(folder / "half.safetensors", folder / "wide.safetensors", dtype="float32")
    return folder / "half.safetensors", folder / "wide.safetensors"


@pytest.mark.parametrize("framework", ROOMS)
def test_evaluation(framework, dtype, tmp_path):
    pytest.importorskip(framework) if framework != "reference" else None
    files = pair(spec.preset("maam_digits"), dtype, tmp_path)
    half, wide = (evaluate_file(file, "digits", framework=framework, limit=64).logits for file in files)
    assert half.dtype == wide.dtype == (np.float64 if framework == "reference" else np.float32)
    np.testing.assert_array_equal(half, wide)


@pytest.mark.parametrize("framework", ROOMS)
def test_prediction(framework, dtype, tmp_path):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip(framework) if framework != "reference" else None
    with np.load(SAMPLE) as content:
        image.fromarray(content["images"][0].transpose(1, 2, 0)).save(tmp_path / "one.png")
    files = pair(spec.preset("maam_cifar10", channels=8), dtype, tmp_path)
    (half,), (wide,) = (predict_files(file, [tmp_path / "one.png"], framework=framework) for file in files)
    np.testing.assert_array_equal(half.probabilities, wide.probabilities)


def test_training_that_starts_from_one(framework, recipe, dtype, tmp_path):
    recipe = recipe.replaced({"epochs": 1, "precision": "fp32"})
    runs = []
    for file in pair(spec.preset("maam_digits"), dtype, tmp_path):
        changed = recipe.replaced({"weights": str(file)})
        runs.append(train("maam_digits", changed, out=tmp_path / f"run {file.stem}", framework=framework))
    assert runs[0].final.read_bytes() == runs[1].final.read_bytes()
