"""Calls that users of other libraries try first: they work, or the message says what to do."""

from functools import partial
from importlib import import_module
from itertools import product

import numpy as np
import pytest

import maam
from maam import parity, reference, spec
from maam.data import BatchLoader, ImageDataset
from maam.deploy import prune
from maam.errors import DataError, DeploymentError, MaamError, SpecError, TrainingError, WeightsError
from maam.spec import draw
from maam.training import Observer, default_recipe, train
from maam.weights import write_weights
from tests.errors import error_of

DIGITS = spec.preset("maam_digits")
ARRAYS = draw(DIGITS.parameters(), 3)
IMAGES = np.zeros((8, 1, 8, 8), np.float32)
COLORED = np.zeros((8, 3, 8, 8), np.float32)
PIXELS = np.zeros((6, 3, 32, 32), np.uint8)
LABELS = np.array([0, 3, 1, 1, 2, 0], np.int32)
DATASET = ImageDataset(PIXELS, LABELS)


@pytest.fixture
def path(tmp_path):
    write_weights(tmp_path / "digits.safetensors", DIGITS, ARRAYS)
    return tmp_path / "digits.safetensors"


def test_a_failed_report_is_false(path):
    pytest.importorskip("torch")
    check, labels = partial(parity.check, frameworks="torch", stages="forward", compiled=False), np.zeros(8, int)
    report = check("maam_digits", images=IMAGES + 3e38, labels=labels)  # the sums overflow float32
    assert not report
    assert not report.passed
    assert check("maam_digits", images=IMAGES + 1, labels=labels)
    assert check(str(path), frameworks=["torch"], stages=["exchange"])


def without_head():
    conv, norm = spec.Conv2d(in_channels=3, out_channels=5, kernel_size=1), spec.BatchNorm2d(num_features=5)
    children = {"conv": conv, "bn": norm, "pool": spec.GlobalPool(), "flatten": spec.Flatten()}
    return spec.with_num_classes(spec.Model(name="normed", input_shape=(3, 8, 8), children=children), 7)


CHECKED = [
    ({"arrays": {"a": np.zeros(3)}}, "arrays: does not fit the model; unexpected: "),
    ({"images": COLORED, "labels": np.zeros(8, int)}, "expected an input (N, 1, 8"),
    ({"images": IMAGES[:0], "labels": np.zeros(0, int)}, "images: expected at least one"),
    ({"images": IMAGES, "labels": np.full(8, 99)}, "labels: expected 0..9, got 99..99"),
    ({"steps": 0}, "steps: expected an integer of at least 1, got 0"),
]
REFUSED = [
    *((MaamError, partial(parity.check, "maam_digits", **options), message) for options, message in CHECKED),
    (SpecError, without_head, "normed: the last layer with parameters does not compute the logits"),
    (SpecError, partial(spec.parse_json, {}), "expected JSON text, got dict; for plain data use parse_document"),
    (SpecError, partial(draw, DIGITS, 0), "draw(spec.parameters(), seed)"),
    (DeploymentError, partial(prune, "a.safetensors", {}), "to prune a weights file, use maam.deploy.prune_file"),
    (DeploymentError, partial(prune, DIGITS, ARRAYS, channels="0.5"), "channels: expected a number in [0, 1), got '0"),
    (DataError, partial(ImageDataset, PIXELS, LABELS, "abcd"), "expected a sequence of names"),
    (DataError, partial(ImageDataset, PIXELS, LABELS, {0: "a"}), "expected a sequence of names"),
    (DataError, partial(ImageDataset, PIXELS.transpose(0, 2, 3, 1), LABELS, list("abcd")), "looks like (N, H, W, C)"),
    (DataError, partial(BatchLoader, (PIXELS, LABELS), 2), "a maam.data.ImageDataset, got a tuple; for image files"),
    (DataError, partial(BatchLoader, DATASET, 2, augmentation=True), "expected a maam.data.Augmentation, got a bool"),
    (DataError, lambda: list(BatchLoader(DATASET, 2)), "iterate over loader.epoch(0)"),
]


@pytest.mark.parametrize(("kind", "call", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_refused_with_advice(kind, call, message):
    assert message in error_of(kind, call)


def test_other_spellings_are_understood(path):
    assert spec.maam(4, reduce=np.True_) == spec.maam(4, reduce=True)
    assert spec.parse_json(DIGITS.model_dump_json()) == DIGITS == spec.parse_document(DIGITS.model_dump())
    assert set(reference.load(path, "float64").dtypes.values()) == {np.dtype("float64")}
    message = error_of(WeightsError, reference.load, path, "float33")
    assert message.startswith("dtype: expected a NumPy dtype or its name, got 'float33'")
    recipe = default_recipe("maam_digits")
    assert recipe.replaced({"optimizer": {"lr": 0.05}}) == recipe.replaced({"optimizer.lr": 0.05})
    assert recipe.replaced({"optimizer": {"name": "adam"}}).optimizer.nesterov is False
    found = ImageDataset(PIXELS, LABELS.astype(int))
    assert found.labels.dtype == np.int32
    assert found.class_names == ("class 0", "class 1", "class 2", "class 3")
    assert ImageDataset(PIXELS, found.labels, list("abcd")).class_names == tuple("abcd")


def foreign_models():
    """Return models of each framework that maam did not build, and other objects."""
    torch, mindspore = (pytest.importorskip(name) for name in ("torch", "mindspore"))
    return (
        torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3)),
        type("WithSpec", (torch.nn.Linear,), {"spec": "a text"})(1, 1),
        mindspore.nn.SequentialCell(mindspore.nn.Conv2d(3, 8, 3)),
        mindspore.nn.CellList([mindspore.nn.Dense(1, 1)]),
        {"weight": np.zeros(1)},
        None,
    )


def takers(path):
    """Return functions that take a model, the path of a file or the name of a preset."""
    found = []
    for name in maam.backend.backend_names():
        module = import_module(f"maam.{name}")
        found += [module.load, module.build, maam.backend.load_backend(name).make_runner]
        found += [partial(module.save_weights, path=path), partial(module.load_weights, path=path)]
    for name in ("timm", "torchvision", "mindcv"):
        pytest.importorskip(name)
        module = import_module(f"maam.{name}")
        found += [module.create_model, partial(module.insert_attention, attention="se")]
    return [
        *found,
        maam.preset,
        partial(maam.convert, dst="out.pth"),
        partial(maam.convert, path),
        partial(parity.check, stages="exchange", compiled=False),
        partial(prune, weights={}),
        partial(maam.deploy.prune_file, dst="out.safetensors"),
        maam.deploy.open_exported,
        partial(write_weights, path, arrays={}),
        maam.weights.read_weights,
        partial(maam.weights.match, arrays={}, source="x"),
        partial(maam.training.evaluate_file, name="digits"),
        partial(maam.training.predict_files, files="a.png"),
        default_recipe,
    ]


def test_models_that_maam_did_not_build(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    before = path.read_bytes()
    for take, given in product(takers(path), foreign_models()):
        message = error_of(MaamError, take, given)
        assert 0 < len(message) < 600, take
    assert path.read_bytes() == before
    huggingface = pytest.importorskip("maam.torch.huggingface", exc_type=ImportError)
    for load in (huggingface.HubModel, huggingface.HubModel.from_pretrained):
        with pytest.raises(MaamError):
            load({"weight": 1})


def test_observers(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    accuracies = []
    mine = type("Mine", (Observer,), {"epoch": lambda self, record: accuracies.append(record["test_accuracy"])})()
    recipe = default_recipe("maam_digits").replaced({"epochs": 1, "batch_size": 256})
    incomplete = type("Incomplete", (), {"epoch": lambda self, record: None})()
    message = error_of(TrainingError, train, "maam_digits", recipe, out=tmp_path / "run", observer=incomplete)
    assert message.startswith("observer: an object of type Incomplete has no note(); derive its class from")
    assert not (tmp_path / "run").exists()
    train("maam_digits", recipe, out=tmp_path / "run", observer=mine)
    assert len(accuracies) == 1
