"""Random resized crops and central crops, held to torchvision's."""

import numpy as np
import pytest

from maam.data import CenterCrop, RandomResizedCrop
from maam.data.transforms import Box
from maam.errors import DataError

SIZES = [(375, 500), (500, 375), (32, 32), (1, 1), (1, 300), (300, 2), (224, 256), (257, 255)]


class TorchDraws:
    """Draws as torchvision makes them, from PyTorch's generator."""

    def uniform(self, low, high):
        import torch

        return torch.empty(1).uniform_(low, high).item()

    def integers(self, low, high):
        import torch

        return torch.randint(low, high, size=(1,)).item()

    def random(self):
        return 1.0


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("scale", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.9, 1.0), (0.5, 0.6))])
def test_boxes_are_torchvisions(height, width, scale, ratio):
    torch = pytest.importorskip("torch")
    transforms = pytest.importorskip("torchvision.transforms")
    framing = RandomResizedCrop(20, scale, ratio)
    image = torch.zeros(3, height, width)
    for seed in range(100):
        torch.manual_seed(seed)
        expected = transforms.RandomResizedCrop.get_params(image, list(scale), list(ratio))
        torch.manual_seed(seed)
        assert framing.frame(height, width, TorchDraws()).source == tuple(expected)


def test_a_random_frame():
    frames = [RandomResizedCrop(20).frame(40, 50, np.random.default_rng(seed)) for seed in range(2000)]
    boxes = np.array([frame.source for frame in frames])
    assert (boxes[:, 0] + boxes[:, 2] <= 40).all()
    assert (boxes[:, 1] + boxes[:, 3] <= 50).all()
    areas = boxes[:, 2] * boxes[:, 3] / 2000
    assert 0.07 < areas.min() < 0.1
    assert 0.9 < areas.max() <= 1
    assert 900 < sum(frame.flip for frame in frames) < 1100
    assert {(frame.size, frame.crop) for frame in frames} == {((20, 20), Box(0, 0, 20, 20))}


@pytest.mark.parametrize("ratio", [(0.1, 0.2), (5.0, 10.0)])
def test_a_box_is_never_empty(ratio):
    """Where torchvision's would be."""
    framing = RandomResizedCrop(20, ratio=ratio)
    assert framing.frame(1, 1, np.random.default_rng(0)).source == (0, 0, 1, 1)


@pytest.mark.parametrize("probability", [0, 1])
def test_flips_never_and_always(probability):
    framing = RandomResizedCrop(8, flip_probability=probability)
    assert {framing.frame(9, 9, np.random.default_rng(seed)).flip for seed in range(50)} == {bool(probability)}


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("size", [224, 25])
def test_central_crops_are_torchvisions(height, width, size):
    transforms = pytest.importorskip("torchvision.transforms")
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    picture = image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    expected = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(size)])(picture)
    frame = CenterCrop(size).frame(height, width, rng)
    top, left, crop_height, crop_width = frame.crop
    resized = picture.resize(frame.size[::-1], image.Resampling.BILINEAR)
    ours = resized.crop((left, top, left + crop_width, top + crop_height))
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(expected))
    assert frame.source == (0, 0, height, width)
    assert not frame.flip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size is 0; expected an integer of at least 1"),
        ({"scale": (0, 1)}, "scale is (0, 1); expected 0 < least <= largest <= 1"),
        ({"scale": (0.5, 0.4)}, "scale is (0.5, 0.4); expected 0 < least <= largest <= 1"),
        ({"scale": 0.5}, "scale is 0.5; expected two numbers"),
        ({"ratio": (1, float("inf"))}, "ratio is (1, inf); expected 0 < least <= largest"),
        ({"ratio": ("a", "b")}, "ratio is ('a', 'b'); expected two numbers"),
        ({"flip_probability": 2}, "flip_probability is 2.0; expected a number in [0, 1]"),
    ],
)
def test_wrong_random_crops(arguments, message):
    with pytest.raises(DataError) as caught:
        RandomResizedCrop(**arguments)
    assert str(caught.value) == message


def test_wrong_central_crops():
    with pytest.raises(DataError, match=r"^resize is 200; expected at least size, 224$"):
        CenterCrop(224, 200)
    with pytest.raises(DataError, match=r"^size is 0\.5; "):
        CenterCrop(0.5)
