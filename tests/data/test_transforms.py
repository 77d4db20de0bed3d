"""Augmentation of images in memory, and the frames of image files, compared with torchvision."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maam.data import Augmentation, CenterCrop, Crops, RandomResizedCrop, to_float
from maam.data.transforms import Box
from maam.errors import DataError
from tests.errors import error_of

refusal = partial(error_of, DataError)


def naive(images, crops, padding):
    count, _, height, width = images.shape
    result = np.zeros_like(images)
    for n, row, column in np.ndindex(count, height, width):
        top, left = crops.offsets[n]
        source_column = width - 1 - column if crops.flips[n] else column
        y, x = row + top - padding, source_column + left - padding
        if 0 <= y < height and 0 <= x < width:
            result[n, :, row, column] = images[n, :, y, x]
    return result


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 5), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    padding=st.integers(0, 7),
    seed=st.integers(0, 2**32 - 1),
)
def test_apply_agrees_with_the_naive_loop(shape, padding, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(1, 256, shape, dtype=np.uint8)
    before, augmentation = images.copy(), Augmentation(padding=padding)
    crops = augmentation.draw(rng, len(images))
    result = augmentation.apply(images, crops)
    np.testing.assert_array_equal(result, naive(images, crops, padding))
    np.testing.assert_array_equal(images, before)
    assert (result.dtype, result.flags.c_contiguous) == (np.uint8, True)


def test_reflection():
    images = np.random.default_rng(0).integers(1, 256, (7, 3, 5, 4), dtype=np.uint8)
    augmentation = Augmentation(padding=3, padding_mode="reflect", flip_probability=0.0)
    crops = augmentation.draw(np.random.default_rng(1), 7)
    padded = np.pad(images, ((0, 0), (0, 0), (3, 3), (3, 3)), mode="reflect")
    for image, (top, left), whole in zip(augmentation.apply(images, crops), crops.offsets, padded, strict=True):
        np.testing.assert_array_equal(image, whole[:, top : top + 5, left : left + 4])
    message = "padding is 4, for images of 5x4; expected less than the image"
    assert message in refusal(Augmentation(padding=4, padding_mode="reflect").apply, images, crops)


def test_draws_cover_all_offsets_evenly_and_flip_half():
    crops = Augmentation().draw(np.random.default_rng(0), 9000)
    for offsets in crops.offsets.T:
        np.testing.assert_allclose(np.bincount(offsets), [1000] * 9, atol=150)
    assert abs(crops.flips.mean() - 0.5) < 0.03
    assert abs(np.corrcoef(crops.offsets.T)[0, 1]) < 0.05
    assert (crops.offsets.shape, crops.flips.shape, crops.flips.dtype) == ((9000, 2), (9000,), np.bool_)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_flips_never_or_always(probability):
    crops = Augmentation(padding=0, flip_probability=probability).draw(np.random.default_rng(0), 1000)
    assert set(crops.flips) == {bool(probability)}
    assert not crops.offsets.any()
    framing = RandomResizedCrop(8, flip_probability=probability)
    assert {framing.frame(9, 9, np.random.default_rng(seed)).flip for seed in range(50)} == {bool(probability)}


def test_invalid_augmentation():
    for value in (-1, 1.5, True):
        assert refusal(Augmentation, padding=value).startswith(f"padding is {value}; expected an integer")
    for value in (-0.1, 1.1, float("nan"), None, "0.5", True):
        message = refusal(Augmentation, flip_probability=value)
        assert message.startswith("flip_probability is ")
        assert "; expected a number" in message
    for count in (-1, 2.0):
        assert refusal(Augmentation().draw, np.random.default_rng(0), count).startswith("count is ")


def test_crops_that_do_not_match_the_images():
    images, straight = np.zeros((2, 3, 8, 8), np.uint8), [False, False]
    wrong = [([[0, 0], [0, 9]], straight), ([[0, 0], [-1, 0]], straight), ([[0.0, 0.0], [0.0, 0.0]], straight)]
    wrong += [([0, 0], straight), ([[0, 0]], [False]), ([[0, 0], [0, 0]], [False]), ([[0, 0], [0, 0]], [0, 1])]
    for offsets, flips in wrong:
        message = refusal(Augmentation().apply, images, Crops(np.array(offsets), np.array(flips)))
        assert message.startswith("crops has ")


def test_invalid_images():
    for images in (np.zeros((2, 3, 8, 8)), np.zeros((3, 8, 8), np.uint8), None):
        crops = Crops(np.zeros((2, 2), int), np.zeros(2, bool))
        assert refusal(Augmentation().apply, images, crops).startswith("images is ")
    for images in (np.zeros(2), [1, 2], np.zeros(2, np.int8)):
        assert "expected a uint8 array" in refusal(to_float, images)


def test_to_float_divides_every_value_by_255():
    values = np.arange(256, dtype=np.uint8)
    result = to_float(values.reshape(4, 64))
    assert (result.dtype, result.shape) == (np.float32, (4, 64))
    assert result.ravel().tolist() == [float(np.float32(value / 255)) for value in range(256)]


SIZES = [(375, 500), (500, 375), (32, 32), (1, 1), (1, 300), (300, 2), (224, 256), (257, 255)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("scale", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.9, 1.0), (0.5, 0.6))])
def test_random_boxes_equal_those_of_torchvision(height, width, scale, ratio):
    torch = pytest.importorskip("torch")
    transforms = pytest.importorskip("torchvision.transforms")
    draws = SimpleNamespace(  # those of torchvision
        uniform=lambda low, high: torch.empty(1).uniform_(low, high).item(),
        integers=lambda low, high: torch.randint(low, high, size=(1,)).item(),
        random=lambda: 1.0,
    )
    framing, image = RandomResizedCrop(20, scale, ratio), torch.zeros(3, height, width)
    for seed in range(100):
        torch.manual_seed(seed)
        expected = transforms.RandomResizedCrop.get_params(image, list(scale), list(ratio))
        torch.manual_seed(seed)
        assert framing.frame(height, width, draws).source == tuple(expected)


def test_random_frames():
    frames = [RandomResizedCrop(20).frame(40, 50, np.random.default_rng(seed)) for seed in range(2000)]
    boxes = np.array([frame.source for frame in frames])
    assert (boxes[:, :2] + boxes[:, 2:] <= (40, 50)).all()
    areas = boxes[:, 2] * boxes[:, 3] / 2000
    assert 0.07 < areas.min() < 0.1
    assert 0.9 < areas.max() <= 1
    assert 900 < sum(frame.flip for frame in frames) < 1100
    assert {(frame.size, frame.crop) for frame in frames} == {((20, 20), Box(0, 0, 20, 20))}
    for ratio in ((0.1, 0.2), (5.0, 10.0)):  # torchvision returns an empty box here
        assert RandomResizedCrop(20, ratio=ratio).frame(1, 1, np.random.default_rng(0)).source == (0, 0, 1, 1)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("size", [224, 25])
def test_central_crops_equal_those_of_torchvision(height, width, size):
    transforms = pytest.importorskip("torchvision.transforms")
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    picture = image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    expected = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(size)])(picture)
    frame = CenterCrop(size).frame(height, width, rng)
    source, crop = ((b.left, b.top, b.left + b.width, b.top + b.height) for b in (frame.source, frame.crop))
    ours = picture.crop(source).resize(frame.size[::-1], image.Resampling.BILINEAR).crop(crop)
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(expected))
    assert (frame.source.height, frame.source.width) == (min(height, 16 * width), min(width, 16 * height))
    assert not frame.flip


def test_invalid_crops():
    least = "expected 0 < least <= largest"
    for arguments, message in [
        ({"size": 0}, "size is 0; expected an integer of at least 1"),
        ({"scale": (0, 1)}, f"scale is (0, 1); {least} <= 1"),
        ({"scale": (0.5, 0.4)}, f"scale is (0.5, 0.4); {least} <= 1"),
        ({"scale": 0.5}, "scale is 0.5; expected two numbers"),
        ({"ratio": (1, float("inf"))}, f"ratio is (1, inf); {least}"),
        ({"ratio": ("0.75", "1.3")}, "ratio is ('0.75', '1.3'); expected two numbers"),
        ({"flip_probability": 2}, "flip_probability is 2.0; expected a number in [0, 1]"),
    ]:
        assert refusal(RandomResizedCrop, **arguments) == message
    assert refusal(CenterCrop, size=224, resize=200) == "resize is 200; expected at least size, 224"
    assert refusal(CenterCrop, size=0.5) == "size is 0.5; expected an integer of at least 1"
