"""`iterable_dataset` yields the bytes of the loader, with and without worker processes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from maam import spec
from maam.data import Augmentation, BatchLoader, ImageDataset
from maam.errors import DataError
from maam.torch import build, iterable_dataset

SAMPLE = Path(__file__).parents[1] / "data" / "cifar10_sample.npz"
pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),  # of Python 3.12
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # three workers on two cores
]


@pytest.fixture(scope="module")
def loader():
    """A loader of seven batches, the last one smaller."""
    with np.load(SAMPLE) as content:
        dataset = ImageDataset(content["images"], content["labels"], tuple("0123456789"))
    return BatchLoader(dataset, 48, seed=3, augmentation=Augmentation())


def as_bytes(batches):
    return [(tuple(x.shape), np.asarray(x).tobytes(), np.asarray(y).astype(np.int32).tobytes()) for x, y in batches]


@pytest.mark.parametrize("options", [{}, {"num_workers": 1}, {"num_workers": 2}, {"num_workers": 3}], ids=str)
def test_the_bytes_and_the_order_are_the_loaders(loader, options):
    batches = DataLoader(iterable_dataset(loader, 5), batch_size=None, **options)
    assert len(batches) == 7
    assert as_bytes(batches) == as_bytes(loader.epoch(5))


@pytest.mark.parametrize(
    "options",
    [{"shuffle": False}, {"augmentation": None}, {"drop_last": True}, {"augmentation": Augmentation(2, 1.0)}],
    ids=str,
)
def test_all_that_the_loader_can_do(loader, options):
    other = BatchLoader(loader.dataset, 100, seed=1, **options)
    for workers in (0, 2):
        batches = DataLoader(iterable_dataset(other), batch_size=None, num_workers=workers)
        assert as_bytes(batches) == as_bytes(other.epoch(0))


def test_spawned_workers(loader):
    """As on macOS and Windows, and from Python 3.14 on."""
    dataset = iterable_dataset(loader)
    batches = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    dataset.set_epoch(1)
    assert as_bytes(batches) == as_bytes(loader.epoch(1))


def test_dtypes(loader):
    dataset = iterable_dataset(loader)
    assert isinstance(dataset, IterableDataset)
    images, labels = next(iter(dataset))
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert (images.shape, labels.shape) == ((48, 3, 32, 32), (48,))


def test_more_workers_than_batches(loader):
    few = BatchLoader(loader.dataset, 320)
    assert as_bytes(DataLoader(iterable_dataset(few), batch_size=None, num_workers=2)) == as_bytes(few.epoch(0))


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}], ids=str)
def test_epochs_are_chosen(loader, options):
    dataset = iterable_dataset(loader, 2)
    batches = DataLoader(dataset, batch_size=None, **options)
    for epoch in (2, 3, 0):
        dataset.set_epoch(epoch)
        expected = as_bytes(loader.epoch(epoch))
        assert as_bytes(batches) == expected
        assert as_bytes(batches) == expected  # until another is chosen


@pytest.mark.parametrize("epoch", [-1, 0.5, "1", None])
def test_a_wrong_epoch_is_refused_at_once(loader, epoch):
    for call in (lambda: iterable_dataset(loader, epoch), lambda: iterable_dataset(loader).set_epoch(epoch)):
        with pytest.raises(DataError, match=r"^epoch is "):
            call()


def test_a_model_trains_on_it(loader):
    model = build(spec.maam_classifier(channels=8, hidden_features=16), seed=0)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for images, labels in DataLoader(iterable_dataset(BatchLoader(loader.dataset, 160)), batch_size=None):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    assert torch.isfinite(loss)
