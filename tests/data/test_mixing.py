"""Mixup and CutMix: images, shares of the classes, and the order of the draws."""

import numpy as np
import pytest

from maam.data import BatchLoader, ImageDataset, Mixing
from maam.data.mixing import MixedBatches
from maam.errors import DataError
from tests.errors import error_of

IMAGES = np.random.default_rng(0).random((16, 3, 10, 6)).astype(np.float32)
LABELS = (np.arange(16) % 5).astype(np.int32)
CLASSES = np.eye(5)[LABELS]


@pytest.mark.parametrize("seed", range(5))
def test_mixup_blends_images_and_labels_alike(seed):
    mixed, shares = Mixing(mixup=0.8).apply(IMAGES, LABELS, 5, np.random.default_rng(seed))
    others = np.random.default_rng(seed).permutation(16)
    share = np.linalg.lstsq((IMAGES - IMAGES[others]).reshape(-1, 1), (mixed - IMAGES[others]).ravel(), rcond=None)[0]
    np.testing.assert_allclose(mixed, share * IMAGES + (1 - share) * IMAGES[others], atol=1e-6)
    np.testing.assert_allclose(shares, share * CLASSES + (1 - share) * CLASSES[others], atol=1e-5)
    assert (mixed.dtype, shares.dtype) == (np.float32, np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_replaces_a_rectangle_of_the_share(seed):
    mixed, shares = Mixing(cutmix=1.0).apply(IMAGES, LABELS, 5, np.random.default_rng(seed))
    others = np.random.default_rng(seed).permutation(16)
    replaced = (mixed != IMAGES).any((0, 1))  # (H, W), the same for all images
    assert replaced.sum() == replaced.any(0).sum() * replaced.any(1).sum()
    np.testing.assert_array_equal(mixed[:, :, replaced], IMAGES[others][:, :, replaced])
    share = 1 - replaced.mean()
    np.testing.assert_allclose(shares, share * CLASSES + (1 - share) * CLASSES[others], atol=1e-6)


def test_both_methods_take_turns():
    mixing = Mixing(mixup=1.0, cutmix=1.0)
    found = [mixing.apply(IMAGES, LABELS, 5, np.random.default_rng(seed))[0] for seed in range(40)]
    assert 10 < sum(np.isin(mixed, IMAGES).all() for mixed in found) < 30  # CutMix makes no new pixels


def test_seed_epoch_and_batch_determine_the_pairs():
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 4, 4), dtype=np.uint8)
    loader = BatchLoader(ImageDataset(images, np.arange(20) % 3), 8)
    batches = MixedBatches(loader, Mixing(mixup=1.0, cutmix=1.0), 3, seed=1)
    whole = [image.tobytes() for image, _ in batches.epoch(1)]
    assert [image.tobytes() for image, _ in batches.epoch(1, 1)] == whole[1:]
    assert len(batches) == len(loader) == 3
    for other in (batches.epoch(2), MixedBatches(loader, batches.mixing, 3, seed=1, rank=1).epoch(1)):
        assert [image.tobytes() for image, _ in other] != whole


@pytest.mark.parametrize("value", [-0.1, float("inf"), float("nan"), "1", None, True])
def test_wrong_alpha(value):
    assert "cutmix is " in error_of(DataError, Mixing, cutmix=value)
    assert "expected a number of at least 0" in error_of(DataError, Mixing, mixup=value)
