"""Checkpoints in MindCV: what MindCV loads, what `maam.mindcv.create_model` loads, and files that do not fit."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

ms, mindcv = map(pytest.importorskip, ("mindspore", "mindcv"))

from mindcv.models import helpers  # noqa: E402
from mindspore.train.checkpoint_pb2 import Checkpoint  # noqa: E402

import maam.mindcv  # noqa: E402
from maam.errors import WeightsError  # noqa: E402
from maam.mindcv import create_model  # noqa: E402
from maam.weights.sets import SeveralSetsWarning  # noqa: E402
from tests.errors import error_of  # noqa: E402

pytestmark = pytest.mark.usefixtures("mode")
DIGITS, RESNET = {"num_classes": 10, "in_channels": 1}, {"num_classes": 10}


def arrays(cell):
    return {p.name: p.asnumpy() for p in cell.get_parameters()}


def same(one, other):
    """Check that common parameters are equal, and return the names of parameters that only `one` has."""
    first, second = arrays(one), arrays(other)
    assert all(np.array_equal(first[name], second[name]) for name in first.keys() & second.keys())
    return sorted(first.keys() - second.keys())


def records(model, prefix=""):
    return [{"name": prefix + name, "data": ms.Tensor(array)} for name, array in arrays(model).items()]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("digits")
    model = mindcv.create_model("maam_digits", seed=5, **DIGITS)
    maam.mindspore.save_weights(model, tmp_path / "w.safetensors")
    maam.convert(tmp_path / "w.safetensors", tmp_path / "converted.ckpt")
    ms.save_checkpoint(model, str(tmp_path / "saved.ckpt"))
    return model, tmp_path


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    network, path = mindcv.create_model("resnet18", **RESNET), str(tmp_path_factory.mktemp("resnet") / "resnet.ckpt")
    ms.save_checkpoint(network, path)
    return network, path


@pytest.mark.parametrize("file", ["converted.ckpt", "saved.ckpt", "w.safetensors"])
def test_weights_of_a_preset(digits, file):
    """MindCV loads only the checkpoints, `maam.mindcv.create_model` also the weights file."""
    model, path = digits[0], str(digits[1] / file)
    assert same(create_model("maam_digits", checkpoint_path=path, **DIGITS), model) == []
    make = partial(create_model, "maam_digits", 4, in_channels=1, seed=1)
    found, fresh, own = (arrays(cell) for cell in (make(checkpoint_path=path), make(), model))
    head = ("classifier.fc2.weight", "classifier.fc2.bias")
    np.testing.assert_equal(found, own | {name: fresh[name] for name in head})
    load = partial(mindcv.create_model, "maam_digits", checkpoint_path=path, **DIGITS)
    if file.endswith(".ckpt"):
        assert same(load(), model) == []
    else:
        assert "the checkpoint file format must same with 'format'" in error_of(ValueError, load)


def test_averaged_weights_of_a_preset(digits):
    ms.save_checkpoint(records(digits[0], "ema."), "ema.ckpt")
    for options in ({"ema": True}, {"key": "ema"}, {}):
        assert same(create_model("maam_digits", checkpoint_path="ema.ckpt", **options, **DIGITS), digits[0]) == []


@pytest.mark.parametrize(("name", "options"), [("maam_digits", DIGITS), ("resnet18", RESNET)])
def test_a_checkpoint_with_a_moving_average(name, options):
    """The average is taken, as by every function of maam, unless `ema` or `key` says otherwise."""
    make = partial(create_model, name, **options)
    load = partial(make, checkpoint_path="both.ckpt")
    own, average = make(), make()
    ms.save_checkpoint([*records(own), *records(average, "ema.")], "both.ckpt")
    for options, expected in (({"ema": False}, own), ({"ema": True}, average), ({"key": "model"}, own)):
        assert same(load(**options), expected) == []
    with pytest.warns(SeveralSetsWarning, match="'ema' is taken"):
        assert same(load(), average) == []
    message = "key and ema cannot be used together"
    assert message in error_of(WeightsError, load, key="model", ema=True)
    message = "prefix and auto_mapping cannot be"
    assert message in error_of(WeightsError, load, prefix="net", auto_mapping=True)
    assert "key: this has no effect without checkpoint_path" in error_of(WeightsError, make, key="ema")


def test_a_plain_checkpoint_and_another_number_of_classes(resnet):
    """Only new layers stay new: attention and, with `num_classes`, the last layer. Without it, ten are an error."""
    load = partial(create_model, "resnet18", attention="mafc", checkpoint_path=resnet[1])
    fresh = same(load(**RESNET), resnet[0])
    assert fresh
    assert all(".bn2.attention." in name for name in fresh)
    before = mindcv.create_model("resnet18", checkpoint_path=resnet[1], **RESNET)
    assert same(maam.mindcv.insert_attention(before, "mafc"), resnet[0]) == fresh
    own, saved = arrays(load(num_classes=4)), arrays(resnet[0])
    assert {name for name in saved if not np.array_equal(own[name], saved[name])} == {
        "classifier.weight",
        "classifier.bias",
    }
    assert len(own["classifier.bias"]) == 4
    assert "wrong shape: classifier.weight (10, 512) instead of (1000, 512)" in error_of(WeightsError, load)


@pytest.mark.parametrize(("name", "start"), [("mobilenet_v2_035_96", False), ("mobilenet_v3_small_075", True)])
def test_a_checkpoint_with_attention(name, start):
    make = partial(create_model, name, num_classes=3, attention="eca" if start else "mafc", identity_init=start)
    trained = make()
    for p in trained.get_parameters():
        p.set_data(ms.Tensor(p.asnumpy() + np.float32(0.5)))
    ms.save_checkpoint(trained, "own.ckpt")
    assert same(make(checkpoint_path="own.ckpt"), trained) == []


def test_pretrained_weights_are_loaded_by_mindcv(resnet, monkeypatch):
    monkeypatch.setattr(helpers.DownLoad, "download_url", lambda self, url, path: None)
    monkeypatch.setattr(helpers, "load_checkpoint", lambda path: ms.load_checkpoint(resnet[1]))
    found = arrays(create_model("resnet18", pretrained=True, attention="se", **RESNET))
    # MindCV does not load the classifier for 10 classes.
    body = {name: array for name, array in arrays(resnet[0]).items() if "classifier" not in name}
    assert len(body) > 60
    assert all(np.array_equal(found[name], array) for name, array in body.items())


def test_files_that_do_not_fit(digits):
    (digits[1] / "broken.ckpt").write_bytes(b"\xff" * 50)
    for name, file, options, message in (
        ("resnet18", "saved.ckpt", {}, "saved.ckpt: does not fit the model; missing: conv1.weight, "),
        ("resnet18", "saved.ckpt", {"attention": "se"}, "saved.ckpt: does not fit the model; missing: conv1.weight, "),
        ("cnn", "converted.ckpt", {}, "converted.ckpt: does not fit the model"),
        ("resnet18", "gone.ckpt", {}, "gone.ckpt: no such file"),
        ("maam_digits", "gone.safetensors", {}, "gone.safetensors: no such file"),
        ("resnet18", "w.safetensors", {}, "w.safetensors: expected a MindSpore checkpoint (.ckpt)"),
        ("maam_digits", "broken.ckpt", DIGITS, "broken.ckpt: not a MindSpore checkpoint, damaged"),
        ("resnet18", "x.ckpt", {"pretrained": True}, "checkpoint_path and pretrained cannot be used together"),
    ):
        assert message in error_of(WeightsError, create_model, name, checkpoint_path=str(digits[1] / file), **options)


def test_broken_values():
    """MindSpore reads beyond a record that is too short, and loads NaN and unknown names without a word."""
    load = partial(create_model, "mobilenet_v1_025", num_classes=2)
    own = {name: (array.shape, array.tobytes()) for name, array in arrays(load()).items()}
    name, (shape, _) = next(iter(own.items()))
    for change, message in (
        ({name: (shape, b"1234")}, "damaged or truncated"),
        ({name: (shape, np.full(shape, np.nan, np.float32).tobytes())}, f"NaN or infinity in {name}"),
        ({"extra.weight": ((1,), bytes(4))}, "unexpected: extra.w"),
    ):
        whole = Checkpoint()
        for tag, (dims, data) in (own | change).items():
            whole.value.add(tag=tag, tensor={"dims": dims, "tensor_type": "Float32", "tensor_content": data})
        Path("x.ckpt").write_bytes(whole.SerializeToString())
        assert message in error_of(WeightsError, load, checkpoint_path="x.ckpt")
    assert "expected the path of a weights file" in error_of(WeightsError, load, checkpoint_path=5)
