"""Data sets in memory, the digits of scikit-learn, and the sample of CIFAR-10 that the tests use."""

import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import maam.data
from maam.data import ImageDataset, digits
from maam.errors import DataError, MissingFrameworkError
from tests.data.conftest import write_binary
from tests.errors import error_of
from tests.image_folders import SAMPLE

IMAGES = np.arange(5 * 2 * 3 * 4, dtype=np.uint8).reshape(5, 2, 3, 4)
LABELS = np.array([0, 1, 2, 1, 0], dtype=np.int32)
NAMES = ("a", "b", "c")
refusal = partial(error_of, DataError)


def test_subsets():
    whole = ImageDataset(IMAGES, LABELS, NAMES)
    part = whole.subset([3, 0, 3])
    np.testing.assert_array_equal(part.images, IMAGES[[3, 0, 3]])
    assert (len(whole), len(part), part.labels.tolist(), part.class_names) == (5, 3, [1, 0, 1], NAMES)
    assert len(whole.subset([])) == 0
    for indices in ([5], [-1], [0.0], [[0]], 0, [True, False, True, True, True], ["0"]):
        assert "indices" in refusal(whole.subset, indices)


def test_held_out_images_have_each_class_in_proportion():
    labels = np.repeat(np.arange(3, dtype=np.int32), (50, 30, 20))
    whole = ImageDataset(np.arange(100, dtype=np.uint8)[:, None, None, None], labels, NAMES)
    rest, held_out = whole.hold_out(20)
    assert np.bincount(held_out.labels).tolist() == [10, 6, 4]
    places = held_out.images.ravel().tolist()
    assert sorted([*rest.images.ravel().tolist(), *places]) == list(range(100))
    assert places == sorted(places) != list(range(0, 100, 5))
    again, other = (whole.hold_out(20, seed)[1].images.ravel().tolist() for seed in (0, 1))
    assert again == places != other
    for count in (0, 100):
        assert f"count: expected 1 to 99 of the 100 images, got {count}" in refusal(whole.hold_out, count)


def test_arrays_that_do_not_match():
    wrong = [(images, LABELS) for images in (IMAGES.astype(np.float32), IMAGES.tolist(), IMAGES[:, :, :0])]
    wrong += [(IMAGES, labels) for labels in (LABELS.astype(np.float64), LABELS.tolist(), LABELS[:, np.newaxis])]
    wrong += [(IMAGES, labels) for labels in (LABELS[:4], LABELS + np.int32(1), LABELS - np.int32(1))]
    for images, labels in (*wrong, (IMAGES[0], LABELS[:2])):
        message = refusal(ImageDataset, images, labels, NAMES)
        assert "images" in message or "labels" in message
    message = "labels reach 1234567890; expected 0..classes - 1; pass class_names to use 100000 classes"
    assert message in refusal(ImageDataset, IMAGES[:1], np.array([1234567890]))


def test_public_names_and_the_packages_that_the_import_loads():
    assert all(callable(getattr(maam.data, name)) == (not name.isupper()) for name in maam.data.__all__)
    heavy = {"sklearn", "torch", "mindspore", "rich", "matplotlib", "scipy"}
    code = f"import sys, maam.data; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def rows(dataset):
    return sorted(image.tobytes() for image in dataset.images)


@pytest.fixture(scope="module")
def content():
    return pytest.importorskip("sklearn.datasets").load_digits()


class TestDigits:
    def test_the_splits_contain_all_images_in_order(self, content):
        train, test = digits("train"), digits("test")
        assert (len(train), len(test), train.images.shape[1:]) == (1438, 359, (1, 8, 8))
        assert (train.images.min(), train.images.max()) == (0, 255)
        assert train.class_names == tuple("0123456789")
        scaled = [image.tobytes() for image in np.round(content.images * 255 / 16).astype(np.uint8)]
        assert sorted(rows(train) + rows(test)) == sorted(scaled)
        for split in (train, test):
            order = [scaled.index(image.tobytes()) for image in split.images]
            assert order == sorted(order)
            np.testing.assert_array_equal(split.labels, content.target[order])

    @pytest.mark.parametrize("fraction", [0.1, 0.5])
    def test_the_fraction_and_the_seed_determine_the_split(self, content, fraction):
        test = digits("test", test_fraction=fraction)
        np.testing.assert_allclose(np.bincount(test.labels), np.bincount(content.target) * fraction, atol=0.5)
        np.testing.assert_array_equal(test.images, digits("test", test_fraction=fraction, seed=0).images)
        assert rows(digits("test", test_fraction=fraction, seed=1)) != rows(test)

    @pytest.mark.usefixtures("content")
    def test_invalid_arguments(self):
        fractions = [("test_fraction", value) for value in (0.0, 1.0, 0.001, -0.1, float("nan"), "half")]
        for name, value in (("split", "val"), *fractions, ("seed", -1), ("seed", 0.5)):
            assert refusal(digits, **{name: value}).startswith(f"{name} is ")

    def test_missing_scikit_learn(self, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert "maam[train]" in error_of(MissingFrameworkError, digits)


class TestSample:
    def test_contains_real_images_in_test_order(self):
        images, labels = (np.load(SAMPLE)[name] for name in ("images", "labels"))
        assert (images.shape, images.dtype, labels.dtype) == ((320, 3, 32, 32), np.uint8, np.int32)
        assert np.bincount(labels).tolist() == [32] * 10
        # The test set of CIFAR-10 begins with a cat, two ships, an airplane and two frogs.
        assert labels[:6].tolist() == [3, 8, 8, 0, 6, 6]
        np.testing.assert_allclose(images.mean(axis=(0, 2, 3)) / 255, [0.494, 0.485, 0.450], atol=0.03)

    def test_the_script_takes_the_first_images_of_each_class(self, tmp_path, monkeypatch):
        content = write_binary("cifar10", tmp_path)
        tool, out = Path(__file__).parents[2] / "tools" / "make_cifar10_sample.py", tmp_path / "out.npz"
        monkeypatch.setattr(sys, "argv", [str(tool), str(tmp_path), str(out), "--per-class", "1"])
        runpy.run_path(str(tool), run_name="__main__")
        with np.load(out) as written:
            np.testing.assert_array_equal(written["labels"], content.labels["test_batch"]["class"])
            np.testing.assert_array_equal(written["images"].reshape(10, -1), content.pixels["test_batch"])
