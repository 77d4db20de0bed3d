import subprocess
import sys

import numpy as np
import pytest

import maam.data
from maam.data import Augmentation, ImageDataset, RandomResizedCrop
from maam.errors import DataError

IMAGES = np.arange(5 * 2 * 3 * 4, dtype=np.uint8).reshape(5, 2, 3, 4)
LABELS = np.array([0, 1, 2, 1, 0], dtype=np.int32)
NAMES = ("a", "b", "c")


def test_a_subset_holds_the_chosen_rows_in_their_order():
    whole = ImageDataset(IMAGES, LABELS, NAMES)
    part = whole.subset([3, 0, 3])
    assert (len(whole), len(part)) == (5, 3)
    np.testing.assert_array_equal(part.images, IMAGES[[3, 0, 3]])
    np.testing.assert_array_equal(part.labels, [1, 0, 1])
    assert part.class_names == NAMES
    assert len(whole.subset([])) == 0


@pytest.mark.parametrize("indices", [[5], [-1], [0.0], [[0]], 0, [True, False, True, True, True], ["0"]])
def test_a_wrong_index_is_refused(indices):
    with pytest.raises(DataError, match="indices"):
        ImageDataset(IMAGES, LABELS, NAMES).subset(indices)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (IMAGES.astype(np.float32), LABELS),
        (IMAGES.tolist(), LABELS),
        (IMAGES[0], LABELS[:2]),
        (IMAGES[:, :, :0], LABELS),
        (IMAGES, LABELS.astype(np.float64)),
        (IMAGES, LABELS.tolist()),
        (IMAGES, LABELS[:, np.newaxis]),
        (IMAGES, LABELS[:4]),
        (IMAGES, LABELS + np.int32(1)),
        (IMAGES, LABELS - np.int32(1)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(images, labels):
    with pytest.raises(DataError, match=r"images|labels"):
        ImageDataset(images, labels, NAMES)


def test_the_package_exports_what_it_names():
    assert all(callable(getattr(maam.data, name)) == (not name.isupper()) for name in maam.data.__all__)


def test_the_import_brings_no_heavy_package():
    heavy = {"sklearn", "torch", "mindspore", "rich", "matplotlib", "scipy"}
    code = f"import sys, maam.data; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Augmentation(flip_probability="0.5"),
        lambda: Augmentation(flip_probability=True),
        lambda: Augmentation(padding=True),
        lambda: RandomResizedCrop(8, ratio=("0.75", "1.3")),
    ],
)
def test_neither_text_nor_bools_are_numbers(make):
    with pytest.raises(DataError, match=r"expected (a number|an integer|two numbers)"):
        make()


def test_labels_that_are_identifiers():
    with pytest.raises(DataError, match=r"labels reach 1234567890; expected 0\.\.classes - 1, and class_names where"):
        ImageDataset(np.zeros((1, 3, 2, 2), np.uint8), np.array([1234567890]))
