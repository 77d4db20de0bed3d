"""`generator_dataset` yields the bytes of the loader, and the next epoch in each pass."""

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from mindspore.dataset import GeneratorDataset

from maam.data import Augmentation, BatchLoader, ImageDataset
from maam.errors import DataError
from maam.mindspore import build, generator_dataset

SAMPLE = Path(__file__).parents[1] / "data" / "cifar10_sample.npz"


@pytest.fixture(scope="module")
def loader():
    """A loader of seven batches, the last one smaller; MindSpore reads further ahead than that."""
    with np.load(SAMPLE) as content:
        dataset = ImageDataset(content["images"], content["labels"], tuple("0123456789"))
    return BatchLoader(dataset, 48, seed=3, augmentation=Augmentation())


def as_bytes(batches):
    return [(tuple(x.shape), np.asarray(x).tobytes(), np.asarray(y).tobytes()) for x, y in batches]


def epochs(loader, *numbers):
    return [as_bytes(loader.epoch(number)) for number in numbers]


def test_each_loop_takes_the_next_epoch(loader):
    dataset = generator_dataset(loader)
    assert isinstance(dataset, GeneratorDataset)
    assert [as_bytes(dataset) for _ in range(3)] == epochs(loader, 0, 1, 2)


@pytest.mark.parametrize(
    "options",
    [{"shuffle": False}, {"augmentation": None}, {"drop_last": True}, {"augmentation": Augmentation(2, 1.0)}],
    ids=str,
)
def test_all_that_the_loader_can_do(loader, options):
    other = BatchLoader(loader.dataset, 100, seed=1, **options)
    assert as_bytes(generator_dataset(other, 4)) == as_bytes(other.epoch(4))


def test_columns_and_dtypes(loader):
    dataset = generator_dataset(loader)
    row = next(dataset.create_dict_iterator(num_epochs=1))
    assert list(row) == ["image", "label"]
    assert (row["image"].dtype, row["label"].dtype) == (ms.float32, ms.int32)
    assert dataset.get_dataset_size() == len(loader) == 7


def test_the_bytes_are_those_of_pytorch(loader):
    pytest.importorskip("torch")
    from maam.torch import iterable_dataset

    ours = [(np.asarray(x), np.asarray(y).astype(np.int32)) for x, y in iterable_dataset(loader, 1)]
    assert as_bytes(generator_dataset(loader, 1)) == as_bytes(ours)


def test_one_iterator_for_several_epochs(loader):
    dataset = generator_dataset(loader, 5)
    iterator = dataset.create_tuple_iterator(num_epochs=2)
    assert [as_bytes(iterator) for _ in range(2)] == epochs(loader, 5, 6)
    assert as_bytes(dataset) == epochs(loader, 7)[0]


def test_an_iterator_without_end_counts_as_one_epoch(loader):
    dataset = generator_dataset(loader)
    iterator = dataset.create_tuple_iterator()
    assert [as_bytes(iterator) for _ in range(3)] == epochs(loader, 0, 1, 2)
    rows = dataset.create_dict_iterator(output_numpy=True)
    assert as_bytes((row["image"], row["label"]) for row in rows) == epochs(loader, 1)[0]


def test_what_asks_for_shapes_costs_no_epoch(loader):
    dataset = generator_dataset(loader)
    assert dataset.output_shapes() == [[48, 3, 32, 32], [48]]
    assert dataset.output_types() == [np.float32, np.int32]
    next(iter(dataset))  # a loop that ends early
    assert as_bytes(dataset) == epochs(loader, 1)[0]


def test_a_data_set_made_of_it_starts_at_its_epoch(loader):
    dataset = generator_dataset(loader)
    mapped = dataset.map(lambda image: image, ["image"])
    for epoch in (0, 4):
        dataset.epoch = epoch
        assert as_bytes(mapped) == epochs(loader, epoch)[0]


@pytest.mark.parametrize("epoch", [-1, 0.5, "1", None])
def test_a_wrong_epoch_is_refused_at_once(loader, epoch):
    with pytest.raises(DataError, match=r"^epoch is "):
        generator_dataset(loader, epoch)


class Recorder(ms.train.Callback):
    """Keeps the batches that a model was trained on."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def on_train_step_end(self, run_context):
        self.batches.append(tuple(run_context.original_args().train_dataset_element))


def test_model_train_takes_the_epochs_one_after_another(loader, small):
    with np.load(SAMPLE) as content:
        images = np.ascontiguousarray(content["images"][:, :1, ::4, ::4])
        three = ImageDataset(images, content["labels"] % 3, ("a", "b", "c"))
    coarse = BatchLoader(three, 64, seed=9, augmentation=Augmentation(1))
    model = build(small, seed=0)
    optimizer = nn.SGD(model.trainable_params(), 0.05)
    trainer = ms.train.Model(model, nn.CrossEntropyLoss(), optimizer)
    dataset, recorder = generator_dataset(coarse), Recorder()
    trainer.train(2, dataset, callbacks=[recorder])
    trainer.train(1, dataset, callbacks=[recorder])
    assert as_bytes(recorder.batches) == [batch for epoch in epochs(coarse, 0, 1, 2) for batch in epoch]
    assert np.isfinite(model(ms.Tensor(images[:2] / np.float32(255))).asnumpy()).all()
