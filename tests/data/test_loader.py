"""Batches of a data set in memory: their order, their bytes, how processes share them, mixup and CutMix."""

import hashlib
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maam.data import Augmentation, BatchLoader, ImageDataset, Mixing, to_float
from maam.data.mixing import MixedBatches
from maam.errors import DataError
from tests.errors import error_of

IMAGES = np.random.default_rng(0).random((16, 3, 10, 6)).astype(np.float32)
LABELS = (np.arange(16) % 5).astype(np.int32)
CLASSES = np.eye(5)[LABELS]


def make(count):
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, 3, 6, 5), dtype=np.uint8)
    # The label is the row, so the labels of a batch show its order.
    return ImageDataset(images, np.arange(count, dtype=np.int32), tuple(map(str, range(count))))


def flat(batches):
    images, labels = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def to_bytes(batches):
    return [(images.tobytes(), labels.tobytes()) for images, labels in batches]


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_are_scaled_images_with_their_labels(shuffle):
    dataset = make(50)
    images, labels = flat(BatchLoader(dataset, 8, seed=1, shuffle=shuffle).epoch(5))
    assert sorted(labels) == list(range(50))
    assert (labels.tolist() == list(range(50))) != shuffle
    np.testing.assert_array_equal(images, to_float(dataset.images[labels]))
    assert (images.dtype, labels.dtype) == (np.float32, np.int32)


def test_augmentation_uses_the_crops_of_the_position():
    dataset, augmentation = make(30), Augmentation(padding=2)
    images, labels = flat(BatchLoader(dataset, 7, seed=4, augmentation=augmentation).epoch(3))
    rng = np.random.default_rng([4, 3])
    order = rng.permutation(30)
    expected = augmentation.apply(dataset.images[order], augmentation.draw(rng, 30))
    np.testing.assert_array_equal(labels, order)
    np.testing.assert_array_equal(images, to_float(expected))


def test_alternating_flips():
    """Each image is flipped in every second epoch, and about half of the images in each epoch."""
    dataset, augmentation = make(200), Augmentation(padding=0, alternating_flip=True)
    loader, flipped = BatchLoader(dataset, 64, seed=2, augmentation=augmentation), []
    for epoch in range(3):
        images, labels = flat(loader.epoch(epoch))
        straight = to_float(dataset.images[labels])
        is_flipped = (images == straight[..., ::-1]).all((1, 2, 3))
        assert (is_flipped ^ (images == straight).all((1, 2, 3))).all()
        flipped.append(is_flipped[np.argsort(labels)])
    assert 70 < flipped[0].sum() < 130
    np.testing.assert_array_equal(flipped[1], ~flipped[0])
    np.testing.assert_array_equal(flipped[2], flipped[0])
    one, *_ = loader.epoch(1, 2)
    assert one[0].tobytes() == list(loader.epoch(1))[2][0].tobytes()


def test_seed_and_epoch_determine_the_bytes_and_the_batch_size_does_not():
    options = {"augmentation": Augmentation()}
    one, again, other = (BatchLoader(make(40), 16, seed=seed, **options) for seed in (1, 1, 2))
    first = to_bytes(one.epoch(2))
    list(one.epoch(0))
    assert to_bytes(one.epoch(2)) == to_bytes(again.epoch(2)) == first
    assert first not in [to_bytes(batches) for batches in (other.epoch(2), other.epoch(1), one.epoch(1))]
    epochs = [flat(BatchLoader(make(40), size, **options).epoch(1)) for size in (1, 7, 40)]
    assert to_bytes(epochs[:1]) == to_bytes(epochs[1:2]) == to_bytes(epochs[2:])


def test_the_bytes_are_the_same_in_all_versions():
    digest = hashlib.sha256()
    for images, labels in BatchLoader(make(33), 8, seed=7, augmentation=Augmentation()).epoch(11):
        digest.update(np.rint(images * 255).astype(np.uint8).tobytes() + labels.astype("<i4").tobytes())
    assert digest.hexdigest() == "fad7f106ecea6fc5f7e9a78d0665722d1018e4dddb575c5803a18ce01d437810"


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_later_start_gives_the_rest_of_the_epoch(data):
    count = data.draw(st.integers(1, 30))
    augmentation = data.draw(st.sampled_from([None, Augmentation(padding=1)]))
    options = {"seed": data.draw(st.integers(0, 9)), "augmentation": augmentation}
    options |= {name: data.draw(st.booleans()) for name in ("shuffle", "drop_last")}
    loader = BatchLoader(make(count), data.draw(st.integers(1, count)), **options)
    whole = to_bytes(loader.epoch(1))
    assert len(whole) == len(loader)
    start = data.draw(st.integers(0, len(loader)))
    assert to_bytes(loader.epoch(1, start=start)) == whole[start:]


def test_a_later_start_processes_no_earlier_image(monkeypatch):
    loader = BatchLoader(make(40), 10, augmentation=Augmentation())
    apply = Mock(side_effect=lambda images, crops: images)
    monkeypatch.setattr(Augmentation, "apply", apply)
    assert len(list(loader.epoch(0, start=3))) == 1
    assert [len(call.args[0]) for call in apply.call_args_list] == [10]


def test_the_length_is_the_number_of_batches():
    cases = [(10, False, [5, 5]), (10, True, [5, 5]), (11, False, [5, 5, 1]), (11, True, [5, 5]), (3, False, [3])]
    for count, drop_last, sizes in cases:
        loader = BatchLoader(make(count), 5, drop_last=drop_last)
        assert [len(labels) for _, labels in loader.epoch(0)] == sizes
        assert len(loader) == len(sizes)


def test_invalid_arguments():
    at_least, share = "; expected an integer of at least", "; expected (rank, size) with 0 <= rank < size"
    for options, message in [
        *(({"batch_size": size}, f"batch_size is {size}{at_least} 1") for size in (0, -2, 2.0)),
        ({"batch_size": 2, "seed": -1}, f"seed is -1{at_least} 0"),
        ({"batch_size": 24, "drop_last": True}, "batch_size is 24, and dataset has 23 images; expected at most 23"),
        ({"batch_size": 7, "share": (0, 2)}, "batch_size is 7, shared by 2 processes; expected a multiple of 2"),
        *(({"batch_size": 4, "share": pair}, f"share is {pair}{share}") for pair in [(2, 2), (-1, 2), (0, 0)]),
    ]:
        assert error_of(DataError, BatchLoader, make(23), **options) == message
    assert error_of(DataError, BatchLoader, make(0), 5).startswith("dataset has no images")


def test_invalid_epochs_are_refused_before_the_first_batch():
    for arguments, named in {(-1,): "index", (0.5,): "index", (0, -1): "start", (0, 3): "start"}.items():
        assert error_of(DataError, BatchLoader(make(4), 2).epoch, *arguments).startswith(f"{named} is ")


@pytest.mark.parametrize(("batch_size", "size"), [(8, 1), (8, 2), (8, 4), (22, 2)])
@pytest.mark.parametrize("drop_last", [True, False])
def test_shares_make_up_each_batch(batch_size, size, drop_last):
    """Of batches of 22, the last one has one image, and so only the first process has it."""
    options = {"seed": 3, "augmentation": Augmentation(1, 0.5, 2), "drop_last": drop_last}
    whole = list(BatchLoader(make(23), batch_size, **options).epoch(2, 1))
    for rank in range(size):
        part = BatchLoader(make(23), batch_size, share=(rank, size), **options).epoch(2, 1)
        expected = [(images[rank::size], labels[rank::size]) for images, labels in whole if len(labels) > rank]
        assert to_bytes(part) == to_bytes(expected)


class TestMixing:
    @pytest.mark.parametrize("seed", range(5))
    def test_mixup_blends_images_and_labels_alike(self, seed):
        mixed, shares = Mixing(mixup=0.8).apply(IMAGES, LABELS, 5, np.random.default_rng(seed))
        others = np.random.default_rng(seed).permutation(16)
        changes = (IMAGES - IMAGES[others]).reshape(-1, 1), (mixed - IMAGES[others]).ravel()
        share = np.linalg.lstsq(*changes, rcond=None)[0]
        np.testing.assert_allclose(mixed, share * IMAGES + (1 - share) * IMAGES[others], atol=1e-6)
        np.testing.assert_allclose(shares, share * CLASSES + (1 - share) * CLASSES[others], atol=1e-5)
        assert (mixed.dtype, shares.dtype) == (np.float32, np.float32)

    @pytest.mark.parametrize("seed", range(5))
    def test_cutmix_replaces_a_rectangle_of_the_share(self, seed):
        mixed, shares = Mixing(cutmix=1.0).apply(IMAGES, LABELS, 5, np.random.default_rng(seed))
        others = np.random.default_rng(seed).permutation(16)
        replaced = (mixed != IMAGES).any((0, 1))  # (H, W), the same for all images
        assert replaced.sum() == replaced.any(0).sum() * replaced.any(1).sum()
        np.testing.assert_array_equal(mixed[:, :, replaced], IMAGES[others][:, :, replaced])
        share = 1 - replaced.mean()
        np.testing.assert_allclose(shares, share * CLASSES + (1 - share) * CLASSES[others], atol=1e-6)

    def test_both_methods_take_turns(self):
        mixing = Mixing(mixup=1.0, cutmix=1.0)
        found = [mixing.apply(IMAGES, LABELS, 5, np.random.default_rng(seed))[0] for seed in range(40)]
        assert 10 < sum(np.isin(mixed, IMAGES).all() for mixed in found) < 30  # CutMix makes no new pixels

    def test_seed_epoch_and_batch_determine_the_pairs(self):
        images = np.random.default_rng(0).integers(0, 256, (20, 1, 4, 4), dtype=np.uint8)
        loader = BatchLoader(ImageDataset(images, np.arange(20) % 3), 8)
        batches = MixedBatches(loader, Mixing(mixup=1.0, cutmix=1.0), 3, seed=1)
        whole = [image.tobytes() for image, _ in batches.epoch(1)]
        assert [image.tobytes() for image, _ in batches.epoch(1, 1)] == whole[1:]
        assert len(batches) == len(loader) == 3
        for other in (batches.epoch(2), MixedBatches(loader, batches.mixing, 3, seed=1, rank=1).epoch(1)):
            assert [image.tobytes() for image, _ in other] != whole

    def test_wrong_alphas(self):
        for value in (-0.1, float("inf"), float("nan"), "1", None, True):
            assert "cutmix is " in error_of(DataError, Mixing, cutmix=value)
            assert "expected a number of at least 0" in error_of(DataError, Mixing, mixup=value)
