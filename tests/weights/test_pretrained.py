"""Pretrained weights in the package, by the name of their preset."""

from importlib import import_module

import numpy as np
import pytest

from maam import reference, spec
from maam.backend import load_backend
from maam.data import ImageDataset, to_float
from maam.errors import WeightsError
from maam.training import evaluate_file, predict_files
from maam.weights import list_pretrained, read_weights
from maam.weights.file import write_safetensors
from maam.weights.pretrained import FOLDER, Card, find_pretrained, read_card, read_pretrained, write_pretrained
from tests.errors import error_of
from tests.image_folders import NAMES, SAMPLE
from tests.weights.helpers import BACKENDS, same

NAME = "maam_cifar10_2m3"
MOST_BYTES = 12_000_000
with np.load(SAMPLE) as content:
    IMAGES, LABELS = content["images"][:48], content["labels"][:48]


@pytest.mark.parametrize("name", list_pretrained())
def test_files_of_the_package(name):
    """Each file is that of its preset, in half precision, with a complete card."""
    node, arrays = read_weights(find_pretrained(name))
    assert node == spec.preset(name)
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.float16)}
    card = read_card(find_pretrained(name))
    assert len(card.class_names) == node.num_classes
    assert 0.8 < card.accuracy < 1
    assert card.command.startswith(f"maam train {name} ")
    assert (reference.build(name, pretrained=True)(to_float(IMAGES)).argmax(1) == LABELS).mean() > 0.75


def test_size_in_the_wheel():
    assert sum(path.stat().st_size for path in FOLDER.glob("*")) < MOST_BYTES


@pytest.mark.parametrize("framework", BACKENDS)
def test_build(framework):
    package = pytest.importorskip(f"maam.{framework}", exc_type=ImportError)
    runner = load_backend(framework).make_runner
    expected = read_pretrained(NAME, {})[1]
    found = runner(package.build(NAME, pretrained=True)).read_arrays()
    assert all(np.array_equal(found[name], array) for name, array in expected.items())
    other = runner(package.build(NAME, pretrained=True, num_classes=4, seed=3))
    assert other.spec == spec.preset(NAME, num_classes=4)
    arrays = other.read_arrays()
    new = {name for name, array in arrays.items() if not np.array_equal(array, expected[name])}
    assert new == {"classifier.fc2.weight", "classifier.fc2.bias"}
    drawn = spec.draw(other.spec.parameters(), 3)
    np.testing.assert_array_equal(arrays["classifier.fc2.weight"], drawn["classifier.fc2.weight"].astype(np.float16))


def test_options_and_names_without_weights():
    absent = "maam_digits: the package has no pretrained weights of this name; weights exist for: maam_c"
    for name, options, message in (
        (NAME, {"in_channels": 1}, "do not fit the options in_channels=1; only num_classes may"),
        (
            NAME,
            {"channels": 64, "num_classes": 3},
            "do not fit the options channels=64; only num_classes may",
        ),
        ("maam_digits", {}, absent),
        ("maam_cifar10_2m", {}, f"did you mean '{NAME}'?"),
        (spec.preset("cnn"), {}, "pretrained: expected the name of a preset, got an object of type Model"),
    ):
        assert message in error_of(WeightsError, read_pretrained, name, options)
    for given in ("my.pth", 1, None):
        assert "pretrained: expected True or False, got " in error_of(
            WeightsError, reference.build, NAME, pretrained=given
        )


def test_prediction_and_evaluation_by_name(tmp_path, monkeypatch):
    image, *_ = map(pytest.importorskip, ("PIL.Image", "torch", "sklearn"))
    image.fromarray(IMAGES[0].transpose(1, 2, 0)).save(tmp_path / "1.png")
    (found,) = predict_files(NAME, tmp_path / "1.png")
    assert found.class_names == NAMES
    dataset = ImageDataset(IMAGES[:20], LABELS[:20], NAMES)
    monkeypatch.setattr("maam.training.sources.read_dataset", lambda *_: dataset)
    assert evaluate_file(NAME, "cifar10").accuracy > 0.7


def test_cards_are_written_and_optional_and_can_be_broken(tmp_path):
    card = Card("digits", ("a", "b"), 0.5, "none", "maam train")
    path = tmp_path / "new.safetensors"
    write_pretrained(find_pretrained(NAME), path, card)
    assert read_card(path) == card
    assert same(path, read_weights(find_pretrained(NAME))[1])
    reference.save_weights(reference.build("rnn", seed=0), path)
    assert read_card(path) is None
    for text in ("{", "[]", '{"class_names": ["a"]}'):
        write_safetensors(path, {"a": np.zeros(1, np.float32)}, {"card": text})
        assert "the card in the file is broken" in error_of(WeightsError, read_card, path)


def test_timm_and_mindcv():
    torch, timm = map(pytest.importorskip, ("torch", "timm"))
    import_module("maam.timm")
    x = to_float(IMAGES[:4])
    expected = reference.build(NAME, pretrained=True)(x)
    model = timm.create_model(NAME, pretrained=True).eval()
    with torch.no_grad():
        np.testing.assert_allclose(model(torch.from_numpy(x)), expected, atol=1e-3)
    assert timm.create_model(NAME, pretrained=True, num_classes=3, in_chans=1)(torch.rand(2, 1, 32, 32)).shape == (2, 3)
    with torch.no_grad():  # the weights of gray images are the sums over the channels, computed in float32
        gray = timm.create_model(NAME, pretrained=True, in_chans=1).eval()(torch.from_numpy(x[:, :1]))
        np.testing.assert_allclose(gray, model(torch.from_numpy(x[:, :1]).repeat(1, 3, 1, 1)), atol=1e-5)
    message = error_of(WeightsError, timm.create_model, NAME, pretrained=True, act_layer="gelu")
    assert message.endswith("build the model with the options of the file, or without pretrained")
    mindspore, _ = map(pytest.importorskip, ("mindspore", "mindcv"))
    cell = import_module("maam.mindcv").create_model(NAME, pretrained=True)
    np.testing.assert_allclose(cell(mindspore.Tensor(x)).asnumpy(), expected, atol=1e-3)
