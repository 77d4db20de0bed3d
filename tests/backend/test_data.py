"""`iterable_dataset` and `generator_dataset` yield the bytes of the loader, epoch by epoch."""

from pathlib import Path

import numpy as np
import pytest

from maam.data import Augmentation, BatchLoader, ImageDataset
from maam.errors import DataError
from tests.errors import error_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),  # of Python 3.12
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # three workers on two cores
]
SAMPLE = Path(__file__).parents[1] / "data" / "cifar10_sample.npz"
OPTIONS = [{"shuffle": False}, {"augmentation": None}, {"drop_last": True}, {"augmentation": Augmentation(2, 1.0)}]
SPAWNED = {"num_workers": 1, "multiprocessing_context": "spawn"}  # macOS, Windows, and Python 3.14 on
PERSISTENT = {"num_workers": 2, "persistent_workers": True}


@pytest.fixture(scope="module")
def loader():
    """A loader of seven batches, the last one smaller; MindSpore reads further ahead than that."""
    with np.load(SAMPLE) as content:
        dataset = ImageDataset(content["images"], content["labels"], tuple("0123456789"))
    return BatchLoader(dataset, 48, seed=3, augmentation=Augmentation())


def as_bytes(batches):
    return [(tuple(x.shape), np.asarray(x).tobytes(), np.asarray(y).astype(np.int32).tobytes()) for x, y in batches]


def epochs(loader, *numbers):
    return [as_bytes(loader.epoch(number)) for number in numbers]


def make_dataset(backend, loader, epoch=0):
    make = backend.maam.iterable_dataset if backend.name == "torch" else backend.maam.generator_dataset
    return make(loader, epoch)


@pytest.mark.parametrize("options", [*OPTIONS, {"batch_size": 320}], ids=str)
def test_all_options_of_the_loader(backend, loader, options):
    other = BatchLoader(loader.dataset, **{"batch_size": 100, "seed": 1, **options})
    dataset, (expected,) = make_dataset(backend, other, 4), epochs(other, 4)
    assert as_bytes(dataset) == expected
    if backend.name == "torch":
        assert as_bytes(backend.torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=2)) == expected
    images, labels = next(iter(dataset))
    assert (images.dtype, images.shape) == (backend.dtype("float32"), (other.batch_size, 3, 32, 32))
    assert labels.dtype == backend.dtype({"torch": "int64", "mindspore": "int32"}[backend.name])
    assert labels.shape == (other.batch_size,)


@pytest.mark.parametrize("epoch", [-1, 0.5, "1", None])
def test_a_wrong_epoch(backend, loader, epoch):
    assert error_of(DataError, make_dataset, backend, loader, epoch).startswith("epoch")
    if backend.name == "torch":
        assert error_of(DataError, make_dataset(backend, loader).set_epoch, epoch).startswith("epoch")


@pytest.mark.slow_in("spawn")
@pytest.mark.parametrize("options", [*({"num_workers": n} for n in (0, 1, 3)), SPAWNED, PERSISTENT], ids=str)
@pytest.mark.parametrize("backend", ["torch"], indirect=True)
def test_workers_keep_bytes_and_order_and_an_epoch_stays(backend, loader, options):
    dataset = make_dataset(backend, loader, 5)
    assert isinstance(dataset, backend.torch.utils.data.IterableDataset)
    batches = backend.torch.utils.data.DataLoader(dataset, batch_size=None, **options)
    assert len(batches) == 7
    assert [as_bytes(batches) for _ in range(2)] == epochs(loader, 5, 5)
    dataset.set_epoch(0)
    assert [as_bytes(batches) for _ in range(2)] == epochs(loader, 0, 0)


@pytest.mark.parametrize("backend", ["mindspore"], indirect=True)
class TestMindSpore:
    def test_each_loop_takes_the_next_epoch(self, backend, loader):
        dataset = make_dataset(backend, loader)
        assert isinstance(dataset, backend.ms.dataset.GeneratorDataset)
        assert dataset.get_dataset_size() == len(loader) == 7
        assert list(next(dataset.create_dict_iterator(num_epochs=1))) == ["image", "label"]
        assert [as_bytes(dataset) for _ in range(3)] == epochs(loader, 1, 2, 3)

    def test_one_iterator_for_several_epochs(self, backend, loader):
        """One without end counts as one epoch."""
        dataset = make_dataset(backend, loader, 5)
        iterator = dataset.create_tuple_iterator(num_epochs=2)
        assert [as_bytes(one) for one in (iterator, iterator, dataset)] == epochs(loader, 5, 6, 7)
        iterator = (dataset := make_dataset(backend, loader)).create_tuple_iterator()
        assert [as_bytes(iterator) for _ in range(3)] == epochs(loader, 0, 1, 2)
        rows = dataset.create_dict_iterator(output_numpy=True)
        assert as_bytes((row["image"], row["label"]) for row in rows) == epochs(loader, 1)[0]

    def test_asking_for_shapes_takes_no_epoch(self, backend, loader):
        dataset = make_dataset(backend, loader)
        assert dataset.output_shapes() == [[48, 3, 32, 32], [48]]
        assert dataset.output_types() == [np.float32, np.int32]
        next(iter(dataset))  # a loop that ends early
        assert as_bytes(dataset) == epochs(loader, 1)[0]

    def test_a_data_set_made_from_it_starts_at_its_epoch(self, backend, loader):
        dataset = make_dataset(backend, loader)
        mapped = dataset.map(lambda image: image, ["image"])
        for epoch in (0, 4):
            dataset.epoch = epoch
            assert as_bytes(mapped) == epochs(loader, epoch)[0]

    def test_model_train_takes_one_epoch_after_another(self, backend, loader):
        ms, recorded = backend.ms, []
        record = ms.train.LambdaCallback(
            on_train_step_end=lambda run: recorded.append(tuple(run.original_args().train_dataset_element))
        )
        images = np.ascontiguousarray(loader.dataset.images[:, :1, ::4, ::4])
        three = ImageDataset(images, loader.dataset.labels % 3, ("a", "b", "c"))
        coarse = BatchLoader(three, 64, seed=9, augmentation=Augmentation(1))
        model = backend.maam.build("mlp", image_size=8, in_channels=1, num_classes=3, seed=0)
        optimizer = ms.nn.SGD(model.trainable_params(), 0.05)
        trainer, dataset = ms.train.Model(model, ms.nn.CrossEntropyLoss(), optimizer), make_dataset(backend, coarse)
        for count in (2, 1):
            trainer.train(count, dataset, callbacks=[record])
        assert as_bytes(recorded) == [batch for epoch in epochs(coarse, 0, 1, 2) for batch in epoch]
        assert np.isfinite(backend.call(model, images[:2] / np.float32(255))).all()
