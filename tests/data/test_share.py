"""Processes that share each batch see, together, what one process sees."""

import numpy as np
import pytest

from maam.data import Augmentation, BatchLoader, ImageDataset
from maam.errors import DataError


@pytest.fixture
def dataset():
    """Images that tell their own number."""
    images = np.zeros((23, 1, 6, 6), np.uint8)
    images += np.arange(23, dtype=np.uint8)[:, None, None, None] * 10
    return ImageDataset(images, np.arange(23, dtype=np.int32), tuple(map(str, range(23))))


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("drop_last", [True, False])
def test_shares_make_up_each_batch(dataset, size, drop_last):
    options = {"seed": 3, "augmentation": Augmentation(1, 0.5, 2), "drop_last": drop_last}
    whole = list(BatchLoader(dataset, 8, **options).epoch(2, 1))
    parts = [list(BatchLoader(dataset, 8, share=(rank, size), **options).epoch(2, 1)) for rank in range(size)]
    assert len(whole) == len(parts[0])
    for number, (images, labels) in enumerate(whole):
        for rank in range(size):
            np.testing.assert_array_equal(parts[rank][number][0], images[rank::size])
            np.testing.assert_array_equal(parts[rank][number][1], labels[rank::size])


def test_a_last_batch_smaller_than_the_processes(dataset):
    parts = [list(BatchLoader(dataset, 22, shuffle=False, share=(rank, 2)).epoch(0)) for rank in range(2)]
    assert [sum(len(labels) for _, labels in part) for part in parts] == [12, 11]
    assert all(len(labels) for part in parts for _, labels in part)


@pytest.mark.parametrize("share", [(2, 2), (-1, 2), (0, 0)])
def test_no_such_share(dataset, share):
    with pytest.raises(DataError, match="expected a rank and the number of processes above it"):
        BatchLoader(dataset, 4, share=share)


def test_a_batch_that_cannot_be_shared(dataset):
    with pytest.raises(DataError, match="batch_size 7 is that of all 2 processes; choose a multiple of 2"):
        BatchLoader(dataset, 7, share=(0, 2))
