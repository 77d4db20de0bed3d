"""The handwritten digits that come with scikit-learn."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from maam.data.checks import check_count, check_fraction
from maam.data.dataset import ImageDataset
from maam.errors import DataError, require

_BRIGHTEST = 16


def digits(split: str = "train", test_fraction: float = 0.2, seed: int = 0) -> ImageDataset:
    """Return a split of scikit-learn's 1,797 digits; no file and no network is needed.

    Args:
        split: "train" or "test".
        test_fraction: the share of each class that goes to the test split, in (0, 1).
        seed: chooses which images these are, 0 or more.

    Returns:
        Images uint8 (N, 1, 8, 8), 0..255, in scikit-learn's order, with the class names "0" to "9".

    Raises:
        DataError: an argument is out of its range, or leaves a class without an image.
        MissingFrameworkError: scikit-learn is not installed.
    """
    if split not in ("train", "test"):
        raise DataError(f"split is {split!r}; expected 'train' or 'test'")
    check_fraction("test_fraction", test_fraction)
    check_count("seed", seed, 0)
    require("sklearn", "train")
    from sklearn.datasets import load_digits

    content = load_digits()
    images = np.rint(content.images * 255 / _BRIGHTEST).astype(np.uint8)[:, np.newaxis]
    whole = ImageDataset(images, content.target.astype(np.int32), tuple(map(str, range(10))))
    is_test = _draw_test(whole.labels, test_fraction, seed)
    return whole.subset(np.flatnonzero(is_test if split == "test" else ~is_test))


def _draw_test(labels: npt.NDArray[np.int32], fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return bool (N,): whether an image goes to the test split, for the same share of each class."""
    rng = np.random.default_rng(seed)
    is_test = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        count = round(fraction * len(rows))
        if not 0 < count < len(rows):
            expected = "a share that gives each split images of each class"
            raise DataError(f"test_fraction is {fraction}; expected {expected}")
        is_test[rows[:count]] = True
    return is_test
