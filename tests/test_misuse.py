"""Calls that users of other libraries try first: they work, or the message says what to do."""

from functools import partial
from importlib import import_module

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
FORWARD = {"stages": "forward", "compiled": False}


@pytest.fixture
def path(tmp_path):
    write_weights(tmp_path / "digits.safetensors", DIGITS, ARRAYS)
    return tmp_path / "digits.safetensors"


def check(images):
    pytest.importorskip("torch")
    labels = np.zeros(len(images), int)
    return parity.check("maam_digits", images=images, labels=labels, frameworks="torch", **FORWARD)


def test_a_failed_report_is_false(path):
    report = check(np.full((8, 1, 8, 8), 3e38, np.float32))  # the sums overflow float32
    assert not report
    assert not report.passed
    assert check(np.ones((8, 1, 8, 8), np.float32))
    assert parity.check(str(path), frameworks=["torch"], stages=["exchange"], compiled=False)


def without_head():
    conv, norm = spec.Conv2d(in_channels=3, out_channels=5, kernel_size=1), spec.BatchNorm2d(num_features=5)
    children = {"conv": conv, "bn": norm, "pool": spec.GlobalPool(), "flatten": spec.Flatten()}
    return spec.with_num_classes(spec.Model(name="normed", input_shape=(3, 8, 8), children=children), 7)


CHECKED = [
    ({"arrays": {"a": np.zeros(3)}}, "arrays: does not fit the model; unexpected: "),
    ({"images": COLORED, "labels": np.zeros(8, int)}, "expected an input (N, 1, 8"),
    ({"images": IMAGES[:0], "labels": np.zeros(0, int)}, "images: expected at least one"),
    ({"images": IMAGES, "labels": np.full(8, 99)}, "labels: expected 0..9, got 99..99"),
    ({"batch_size": 0}, "batch_size: expected an integer of at least 1, got 0"),
    ({"steps": 0}, "steps: expected an integer of at least 1, got 0"),
    ({"stages": "forwards"}, "stages: expected names from "),
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


def test_other_spellings(path):
    assert spec.maam(4, reduce=np.True_) == spec.maam(4, reduce=True)
    assert spec.parse_json(DIGITS.model_dump_json()) == DIGITS == spec.parse_document(DIGITS.model_dump())
    assert set(reference.load(path, "float64").dtypes.values()) == {np.dtype("float64")}
    message = error_of(WeightsError, reference.load, path, "float33")
    assert message.startswith("dtype: expected a NumPy dtype or its name, got 'float33'")


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
    """Return functions that take a model, the path of a file or the name of a preset, by name."""
    found = {}
    for name in maam.backend.backend_names():
        module, backend = import_module(f"maam.{name}"), maam.backend.load_backend(name)
        found |= {
            f"{name}.save_weights": lambda given, module=module: module.save_weights(given, path),
            f"{name}.load_weights": lambda given, module=module: module.load_weights(given, path),
            f"{name}.load": module.load,
            f"{name}.build": module.build,
            f"{name}.make_runner": backend.make_runner,
        }
    for name in ("timm", "torchvision", "mindcv"):
        pytest.importorskip(name)
        module = import_module(f"maam.{name}")
        found[f"{name}.insert_attention"] = partial(module.insert_attention, attention="se")
        found[f"{name}.create_model"] = module.create_model
    return found | {
        "convert": partial(maam.convert, dst="out.pth"),
        "convert dst": partial(maam.convert, path),
        "parity": partial(parity.check, stages="exchange", compiled=False),
        "prune": partial(prune, weights={}),
        "prune_file": partial(maam.deploy.prune_file, dst="out.safetensors"),
        "open_exported": maam.deploy.open_exported,
        "write_weights": lambda given: write_weights(path, given, {}),
        "read_weights": maam.weights.read_weights,
        "match": partial(maam.weights.match, arrays={}, source="x"),
        "evaluate_file": lambda given: maam.training.evaluate_file(given, "digits"),
        "predict_files": partial(maam.training.predict_files, files="a.png"),
        "default_recipe": default_recipe,
        "preset": maam.preset,
    }


def test_models_that_maam_did_not_build(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    before = path.read_bytes()
    for name, take in takers(path).items():
        for given in foreign_models():
            message = error_of(MaamError, take, given)
            assert 0 < len(message) < 600, name
    assert path.read_bytes() == before
    huggingface = pytest.importorskip("maam.torch.huggingface", exc_type=ImportError)
    for load in (huggingface.HubModel, huggingface.HubModel.from_pretrained):
        with pytest.raises(MaamError):
            load({"weight": 1})


def test_labels_and_class_names():
    found = ImageDataset(PIXELS, LABELS.astype(int))
    assert found.labels.dtype == np.int32
    assert found.class_names == ("class 0", "class 1", "class 2", "class 3")
    assert ImageDataset(PIXELS, found.labels, list("abcd")).class_names == tuple("abcd")


def test_a_table_changes_the_named_settings():
    before = default_recipe("maam_digits")
    assert before.replaced({"optimizer": {"lr": 0.05}}) == before.replaced({"optimizer.lr": 0.05})
    assert before.replaced({"optimizer": {"name": "adam"}}).optimizer.nesterov is False


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
