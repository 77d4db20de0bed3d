import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maam.data import Augmentation, Crops, to_float
from maam.errors import DataError


def naive(images, crops, padding):
    """The augmentation as the paper says it, one pixel at a time."""
    count, _, height, width = images.shape
    result = np.zeros_like(images)
    for n in range(count):
        top, left = crops.offsets[n]
        for row in range(height):
            for column in range(width):
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
    before = images.copy()
    augmentation = Augmentation(padding=padding)
    crops = augmentation.draw(rng, len(images))
    result = augmentation.apply(images, crops)
    np.testing.assert_array_equal(result, naive(images, crops, padding))
    np.testing.assert_array_equal(images, before)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous


def test_an_image_larger_than_the_padding_keeps_its_middle():
    images = np.full((1, 3, 32, 32), 7, np.uint8)
    corner = Augmentation().apply(images, Crops(np.array([[0, 8]]), np.array([False])))
    assert not corner[0, :, :4].any()
    assert not corner[0, :, :, 28:].any()
    assert (corner[0, :, 4:, :28] == 7).all()


def test_draws_cover_all_offsets_evenly_and_flip_half():
    crops = Augmentation().draw(np.random.default_rng(0), 9000)
    for axis in range(2):
        counts = np.bincount(crops.offsets[:, axis], minlength=9)
        assert len(counts) == 9
        assert (abs(counts - 1000) < 150).all()
    assert abs(crops.flips.mean() - 0.5) < 0.03
    assert abs(np.corrcoef(crops.offsets.T)[0, 1]) < 0.05
    assert (crops.offsets.shape, crops.flips.shape, crops.flips.dtype) == ((9000, 2), (9000,), np.bool_)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_the_ends_of_the_flip_probability_are_certain(probability):
    crops = Augmentation(padding=0, flip_probability=probability).draw(np.random.default_rng(0), 1000)
    assert set(crops.flips) == {bool(probability)}
    assert not crops.offsets.any()


@pytest.mark.parametrize(
    "options",
    [
        {"padding": -1},
        {"padding": 1.5},
        {"flip_probability": -0.1},
        {"flip_probability": 1.1},
        {"flip_probability": float("nan")},
        {"flip_probability": None},
    ],
)
def test_a_wrong_argument_is_named(options):
    with pytest.raises(DataError, match=f"^{next(iter(options))} is "):
        Augmentation(**options)


@pytest.mark.parametrize("count", [-1, 2.0])
def test_a_wrong_count_is_named(count):
    with pytest.raises(DataError, match=r"^count is "):
        Augmentation().draw(np.random.default_rng(0), count)


@pytest.mark.parametrize(
    ("offsets", "flips"),
    [
        ([[0, 0]], [False]),
        ([[0, 0], [0, 9]], [False, False]),
        ([[0, 0], [-1, 0]], [False, False]),
        ([[0, 0], [0, 0]], [False]),
        ([[0.0, 0.0], [0.0, 0.0]], [False, False]),
        ([[0, 0], [0, 0]], [0, 1]),
        ([0, 0], [False, False]),
    ],
)
def test_crops_that_do_not_fit_are_refused(offsets, flips):
    with pytest.raises(DataError, match=r"^crops has "):
        Augmentation().apply(np.zeros((2, 3, 8, 8), np.uint8), Crops(np.array(offsets), np.array(flips)))


@pytest.mark.parametrize("images", [np.zeros((2, 3, 8, 8)), np.zeros((3, 8, 8), np.uint8), None])
def test_images_that_do_not_fit_are_refused(images):
    with pytest.raises(DataError, match=r"^images is "):
        Augmentation().apply(images, Crops(np.zeros((2, 2), int), np.zeros(2, bool)))


def test_to_float_divides_every_value_by_255():
    values = np.arange(256, dtype=np.uint8)
    result = to_float(values.reshape(4, 64))
    assert (result.dtype, result.shape) == (np.float32, (4, 64))
    assert result.ravel().tolist() == [float(np.float32(value / 255)) for value in range(256)]
    assert (result.min(), result.max()) == (0, 1)


@pytest.mark.parametrize("images", [np.zeros(2), [1, 2], np.zeros(2, np.int8)])
def test_to_float_takes_uint8_only(images):
    with pytest.raises(DataError, match="expected a uint8 array"):
        to_float(images)
