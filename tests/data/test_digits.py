import numpy as np
import pytest

from maam.data import digits
from maam.errors import DataError, MissingFrameworkError

datasets = pytest.importorskip("sklearn.datasets")


def rows(dataset):
    return sorted(image.tobytes() for image in dataset.images)


def test_the_splits_share_out_all_images_in_their_order():
    content = datasets.load_digits()
    train, test = digits("train"), digits("test")
    assert (len(train), len(test)) == (1438, 359)
    scaled = np.array([[[round(v * 255 / 16) for v in row] for row in image] for image in content.images])
    assert sorted(rows(train) + rows(test)) == sorted(image.astype(np.uint8).tobytes() for image in scaled)
    position = {image.astype(np.uint8).tobytes(): index for index, image in enumerate(scaled)}
    order = [position[image.tobytes()] for image in test.images]
    assert order == sorted(order)
    np.testing.assert_array_equal(test.labels, content.target[order])


def test_images_are_grey_and_use_the_whole_range():
    train = digits()
    assert train.images.shape[1:] == (1, 8, 8)
    assert (train.images.min(), train.images.max()) == (0, 255)
    assert train.class_names == tuple("0123456789")


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_each_class_gives_the_same_share(fraction):
    counts = np.bincount(datasets.load_digits().target)
    test = digits("test", test_fraction=fraction)
    np.testing.assert_allclose(np.bincount(test.labels), counts * fraction, atol=0.5)


def test_the_seed_alone_decides_the_split():
    np.testing.assert_array_equal(digits("test").images, digits("test", seed=0).images)
    assert rows(digits("test", seed=1)) != rows(digits("test"))


@pytest.mark.parametrize(
    "options",
    [
        {"split": "val"},
        {"test_fraction": 0.0},
        {"test_fraction": 1.0},
        {"test_fraction": 0.001},
        {"test_fraction": -0.1},
        {"test_fraction": float("nan")},
        {"test_fraction": "half"},
        {"seed": -1},
        {"seed": 0.5},
    ],
)
def test_a_wrong_argument_is_named(options):
    with pytest.raises(DataError, match=f"^{next(iter(options))} is "):
        digits(**options)


def test_a_missing_scikit_learn_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingFrameworkError, match=r"maam\[train\]"):
        digits()
